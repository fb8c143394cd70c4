"""The fairness audit of whole runs: before and after, of several models, of ones own groups."""

import json
from collections import Counter

import pytest

from lora_detox import api
from lora_detox.embedded.identities import GROUPS
from lora_detox.metrics.fairness import MEANS
from lora_detox.report.jsonl import read_jsonl
from tests.runs import SMOKE, write_adapter

RUN = [*SMOKE, "task=gptj_continuation", "budget=off", "evaluation.audit_least=2"]
QUICK = ["stage=evaluate", "task=gptj_continuation", "threads=1", "evaluation.prompts=4"]
QUICK += ["evaluation.new_tokens=6", "data.limit=40"]


@pytest.fixture(scope="module")
def own_file(tmp_path_factory):
    """Twelve prompts about two groups, with a further column."""
    file = tmp_path_factory.mktemp("own") / "groups.csv"
    rows = [
        f"The {one} in house {n} said that,{one}s,{n}"
        for one in ("nurse", "pilot")
        for n in range(6)
    ]
    file.write_text("\n".join(["prompt,group,house", *rows]) + "\n")
    return file


def untimed(row):
    return {key: value for key, value in row.items() if not key.startswith("seconds")}


@pytest.mark.training
def test_every_run_is_audited_and_trains_as_without(tmp_path, capsys):
    summary = api.run([*RUN, "evaluation.audit_prompts=24"], tmp_path / "with")
    printed = capsys.readouterr().out
    api.run([*RUN, "evaluation.audit=null", "evaluation.audit_texts=null"], tmp_path / "without")
    rows, bare = (read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("with", "without"))
    assert list(map(untimed, rows)) == list(map(untimed, bare))
    adapters = [
        (tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes()
        for name in ("with", "without")
    ]
    assert adapters[0] == adapters[1]
    fairness = summary["fairness"]
    assert set(fairness["sets"]) == {"audit"}  # the comments name no group
    audit = fairness["sets"]["audit"]
    assert set(audit["groups"]) == {group.name for group in GROUPS}
    women = audit["groups"]["women"]
    assert women["prompts"] == 2
    assert {*MEANS, "perplexity"} == set(women["change"])
    assert set(fairness["scorers"]) == {"reward", "judge"}
    assert set(fairness["scorers"]["judge"]["groups"]) == {group.name for group in GROUPS}
    assert fairness["verdict"].startswith(
        "Fairness on embedded:identities (12 groups of 2 prompts)"
    )
    page = (tmp_path / "with" / "report.html").read_text()
    for sentence in (fairness["verdict"], fairness["scorer_verdict"]):
        assert " ".join(sentence.split()) in " ".join(printed.split())
        assert sentence.replace("'", "&#39;") in page
    assert "people with a disability" in page
    bare_summary = json.loads((tmp_path / "without" / "summary.json").read_text())
    assert "fairness" not in bare_summary


@pytest.mark.training
def test_groups_of_the_data_are_audited_and_go_into_the_samples(own_file, tmp_path):
    own = ["data=local", f"data.path={own_file}", "data.columns=[group,house]"]
    own += ["data.split_fractions=[0.2,0.2,0.6]", "data.limit=null", "evaluation.audit=null"]
    summary = api.run([*RUN, *own], tmp_path / "out")
    samples = read_jsonl(tmp_path / "out" / "samples.jsonl")
    sizes = Counter(row["columns"]["group"] for row in samples)
    entry = summary["fairness"]["sets"]["data"]
    assert {name: one["prompts"] for name, one in entry["groups"].items()} == dict(sizes)
    assert len(sizes) == 2
    assert all(row["columns"]["house"] in row["prompt"] for row in samples)


def test_evaluate_compares_models_on_ones_own_groups_in_one_command(own_file, tmp_path, capsys):
    write_adapter("gptj", tmp_path / "adapter")
    summary = api.run(
        [
            *QUICK,
            f"evaluation.audit={own_file}",
            "evaluation.audit_least=6",
            f"evaluation.models=['embedded:policy',{tmp_path / 'adapter'}]",
        ],
        tmp_path / "out",
    )
    base, tuned = summary["fairness"]["models"]
    assert (base["against"], tuned["against"]) == (None, "embedded:policy")
    assert "change" not in base["sets"]["audit"]["all"]
    assert set(base["sets"]["audit"]["groups"]["nurses"]["gap"]) >= {"toxicity", "judge_toxicity"}
    change = tuned["sets"]["audit"]["groups"]["pilots"]["change"]
    before, after = (
        tuned["sets"]["audit"]["groups"]["pilots"][side] for side in ("before", "after")
    )
    assert change["toxicity"]["mean"] == pytest.approx(after["toxicity"] - before["toxicity"])
    assert list(summary["prompts"]) == ["in_distribution"]  # the audit is no set of the protocol
    rows = read_jsonl(tmp_path / "out" / "audit.jsonl")
    assert len(rows) == 2 * 12
    assert rows[0]["columns"] == {"group": "nurses"}
    printed = " ".join(capsys.readouterr().out.split())
    assert " ".join(tuned["verdict"].split()) in printed
    page = (tmp_path / "out" / "report.html").read_text()
    assert "By group: test_evaluate_compares" in page
    assert "Civil texts that the scorers call toxic" in page


def test_strengths_are_audited_at_0_and_at_the_one_that_is_shown(own_file, tmp_path):
    write_adapter("gptj", tmp_path / "adapter")
    summary = api.run(
        [
            *QUICK,
            f"evaluation.audit={own_file}",
            "evaluation.audit_least=6",
            "evaluation.strengths=[0,0.5,1]",
            f"evaluation.models=[{tmp_path / 'adapter'}]",
        ],
        tmp_path / "out",
    )
    (model,) = summary["fairness"]["models"]
    assert (model["strength"], model["against"]) == (1.0, model["model"])
    assert "change" in model["sets"]["audit"]["all"]
    assert len(read_jsonl(tmp_path / "out" / "audit.jsonl")) == 2 * 12


@pytest.mark.training
def test_a_reward_function_is_not_called_for_the_audit(own_file, tmp_path):
    function = tmp_path / "reward.py"
    function.write_text(
        "def reward(prompts, completions, **columns):\n"
        "    assert not any('in house' in one for one in prompts), 'an audit prompt'\n"
        "    return [float(len(one)) for one in completions]\n"
    )
    summary = api.run(
        [
            *RUN,
            f"reward.function={function}:reward",
            f"evaluation.audit={own_file}",
            "reward.probe=false",
        ],
        tmp_path / "out",
    )
    assert summary["fairness"]["sets"]["audit"]["all"]["prompts"] == 12
    answers = read_jsonl(tmp_path / "out" / "audit.jsonl")
    assert [row["columns"]["group"] for row in answers] == ["nurses"] * 6 + ["pilots"] * 6
    assert {"before", "after", "toxicity_before", "judge_toxicity_after"} <= set(answers[0])
    assert summary["fairness"]["scorers"]["reward"]["scorer"].startswith("embedded:")


@pytest.mark.training
def test_a_resumed_run_has_the_audit_of_its_start(tmp_path):
    options = [*RUN, "algorithm.iterations=3", "checkpoint.every=1", "checkpoint.keep=9"]
    whole = api.run(options, tmp_path / "run")
    for name in ("summary.json", "checkpoints/iteration_000003"):
        path = tmp_path / "run" / name
        path.unlink() if path.is_file() else _remove(path)
    resumed = api.run([*options, "resume=true"], tmp_path / "run")
    assert resumed["fairness"] == whole["fairness"]


def _remove(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    folder.rmdir()
