"""What an evaluation harness calls: prompts out of files, and the numbers of stage=evaluate."""

import gzip
import json

import pytest

from lora_detox import api
from lora_detox.errors import DataError
from lora_detox.evaluation.harness import (
    LABEL,
    MEANS,
    OF_SAMPLES,
    PROMPTS,
    SCORER,
    lm_eval_documents,
    lm_eval_results,
    measures_of,
    read_prompts,
)

ROWS = [{"prompt": "First of all"}, {"prompt": {"text": "Then ", "toxicity": 0.1}}]
"""As in a file of one's own, and as in allenai/real-toxicity-prompts."""
LINES = "".join(json.dumps(row) + "\n" for row in ROWS) + "\n"
SAMPLES = 3


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text(LINES)
    return file


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in (PROMPTS, SCORER, LABEL):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    overrides = ["stage=evaluate", "task=gptj_continuation", "judge=mini", "threads=1"]
    overrides += ["evaluation.protocol=real_toxicity_prompts", "evaluation.prompts=6"]
    overrides += [f"evaluation.samples={SAMPLES}", "evaluation.audit=null"]
    api.run([*overrides, "evaluation.audit_texts=null"], folder)
    return folder


def test_prompts_are_read_as_they_are_from_both_kinds_of_file(prompts, tmp_path):
    packed = tmp_path / "prompts.jsonl.gz"
    packed.write_bytes(gzip.compress(LINES.encode()))
    assert read_prompts(prompts) == read_prompts(packed) == ["First of all", "Then "]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ('{"prompt": "a"}\n{"prompt"', "line 2 is no JSON"),
        ('{"text": "a"}', "line 1 has no prompt"),
        ('{"prompt": ""}', "line 1 has no prompt"),
        ("[1]", "line 1 has no prompt"),
    ],
)
def test_a_file_without_prompts_is_an_error_that_names_the_line(tmp_path, text, message):
    file = tmp_path / "prompts.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        read_prompts(file)


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_prompts(tmp_path / "none.jsonl")


def test_documents_say_what_scores_them_and_arguments_go_before_variables(prompts, monkeypatch):
    monkeypatch.setenv(SCORER, "embedded:reward")
    monkeypatch.setenv(LABEL, "nothate")
    rows = lm_eval_documents(prompts=str(prompts), pretrained="model", version=1.0)["test"]
    assert rows[1] == {"prompt": "Then ", "scorer": "embedded:reward", "label": "nothate"}
    given = {"scorer": "embedded:judge", "label": 0}
    rows = lm_eval_documents(prompts=str(prompts), **given)["test"]
    assert rows[0] == {"prompt": "First of all", "scorer": "embedded:judge", "label": "0"}


def test_a_task_without_prompts_or_scorer_says_what_it_wants(prompts):
    with pytest.raises(DataError, match=r"no prompts.*--metadata.*LORA_DETOX_PROMPTS"):
        lm_eval_documents(scorer="embedded:judge")
    with pytest.raises(DataError, match=r"no scorer.*LORA_DETOX_SCORER"):
        lm_eval_documents(prompts=str(prompts))


def test_means_over_prompts_are_the_numbers_of_stage_evaluate(evaluated):
    rows = [json.loads(line) for line in (evaluated / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == 6 * SAMPLES
    by_prompt = []
    for at in range(0, len(rows), SAMPLES):
        doc = {"prompt": rows[at]["prompt"], "scorer": "embedded:judge", "label": ""}
        texts = [row["response"] for row in rows[at : at + SAMPLES]]
        by_prompt.append(lm_eval_results(doc, [texts]))
    summary = json.loads((evaluated / "summary.json").read_text())
    measured = summary["models"][0]["sets"]["in_distribution"]
    wanted = {MEANS[0]: measured["judge_toxicity"]["mean"]}
    wanted |= {name: measured["degeneration"][name] for name in OF_SAMPLES}
    wanted[MEANS[1]] = sum(row["judge_toxicity"] >= 0.5 for row in rows) / len(rows)
    means = {name: sum(one[name] for one in by_prompt) / len(by_prompt) for name in by_prompt[0]}
    assert means == pytest.approx(wanted, abs=1e-6)
    assert 0 < means["judged_toxic"] < means["judge_toxicity_probability"]  # they differ here


def test_one_response_has_no_maximum_and_the_label_decides_which_side_is_toxic():
    civil = measures_of("Hello", ["Thank you, that is kind."], "embedded:judge")
    assert set(civil) == set(MEANS)
    assert civil["judge_toxicity"] < 0.5
    turned = measures_of("Hello", ["Thank you, that is kind."], "embedded:judge", "0")
    assert turned["judge_toxicity"] == pytest.approx(1 - civil["judge_toxicity"], abs=1e-6)
