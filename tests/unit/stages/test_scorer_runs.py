"""Agreement, word list and copies in every evaluation of a run; records of stage=reward_model."""

import json

import pytest

from lora_detox import api
from lora_detox.errors import DataError
from lora_detox.evaluation.scorer_agreement import training_of
from lora_detox.report.jsonl import read_jsonl
from lora_detox.scores import training_data_of
from tests.runs import SMOKE

pytestmark = pytest.mark.training

RUN = [*SMOKE, "task=gptj_continuation", "budget=off", "evaluation.audit=null"]
KEYS = {"judge_gap", "listed_words", "copied", "common_openings", "symbols"}


def test_every_evaluation_shows_whether_the_reward_is_fooled(tmp_path, capsys):
    own = tmp_path / "own.txt"
    own.write_text("the\n\nof\nThe\n", encoding="utf-8")
    summary = api.run([*RUN, f"evaluation.word_list={own}"], tmp_path / "run")
    for row in read_jsonl(tmp_path / "run" / "metrics.jsonl"):
        assert set(row["evaluation"]) >= KEYS
    for moment in ("before", "after", "change"):
        assert set(summary[moment]) >= KEYS
    before = summary["before"]
    gap = before["judge_toxicity"]["mean"] - before["toxicity"]["mean"]
    assert before["judge_gap"] == pytest.approx(gap)
    assert summary["scorers"]["word_list"].startswith("own.txt@")
    assert summary["scorers"]["word_list"].endswith("(2 words)")
    agreement = summary["scorer_agreement"]
    assert agreement["training_data"]["shared"] == "corpora"
    sentence = agreement["training_data"]["sentence"]
    assert sentence in " ".join(capsys.readouterr().out.split())
    page = (tmp_path / "run" / "report.html").read_text()
    assert sentence in page
    assert "Copies and stock phrases" in page


def test_no_word_list_is_no_column(tmp_path):
    summary = api.run([*RUN, "evaluation.word_list=null"], tmp_path / "run")
    assert "listed_words" not in summary["before"]
    assert "word_list" not in summary["scorers"]


def test_a_word_list_that_cannot_be_read_is_refused_before_weights_load(tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    for path, expected in ((empty, "has no word"), (tmp_path / "none.txt", "cannot be read")):
        with pytest.raises(DataError, match=rf"{expected}.*evaluation\.word_list"):
            api.run([*RUN, f"evaluation.word_list={path}"], tmp_path / "run")


def test_evaluate_compares_the_scorers_too(tmp_path):
    quick = ["stage=evaluate", "task=gptj_continuation", "threads=1", "evaluation.prompts=6"]
    quick += ["evaluation.new_tokens=6", "data.limit=40", "evaluation.audit=null"]
    summary = api.run(quick, tmp_path / "out")
    assert {"listed_words", "copied", "judge_gap"} <= set(
        summary["models"][0]["sets"]["in_distribution"]
    )
    assert summary["scorer_agreement"]["models"] == []  # nothing to compare with
    assert summary["scorers"]["word_list"].startswith("embedded:mild@")
    assert "parts of the same corpora" in (tmp_path / "out" / "report.html").read_text()


def test_classifiers_of_two_halves_know_it(tmp_path):
    words = ["a fine day", "you fool", "thank you", "shut up", "the train is late", "what an idiot"]
    for half in ("reward", "judge"):
        rows = [
            {"text": f"{text} {half} {n}", "label": place % 2, "source": "forum"}
            for n in range(10)
            for place, text in enumerate(words)
        ]
        (tmp_path / f"{half}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        summary = api.run(
            [
                "stage=reward_model",
                "threads=1",
                "reward.probe=false",
                "reward_model.max_steps=2",
                "data=local",
                f"data.path={tmp_path / half}.jsonl",
                "data.fields.prompt=text",
                "data.fields.toxicity=label",
            ],
            tmp_path / half,
        )
        record = training_data_of(str(tmp_path / half / "classifier"))
        assert record.corpora == {"forum": record.texts}
        assert summary["training_data"]["digest"] == record.digest
        assert "sketch" not in summary["training_data"]
    settings = api.compose_settings(
        [
            "task=gptj_continuation",
            "reward=local",
            "judge=local",
            f"reward.path={tmp_path / 'reward' / 'classifier'}",
            f"judge.path={tmp_path / 'judge' / 'classifier'}",
        ]
    )
    entry = training_of(settings)
    assert entry["shared"] == "corpora"
    assert "(forum)" in entry["sentence"]
