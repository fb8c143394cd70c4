"""task=rewrite in whole runs: J in every record, the best state by it, and a user's own pairs."""

import json

import pytest
import torch

from lora_detox import api
from lora_detox.embedded.rewrites import rewrite_rows
from lora_detox.errors import DetoxError
from lora_detox.prompts.templates import parse_template
from lora_detox.run import build
from lora_detox.scores import Encoder, check_encoder
from tests.encoders import write_encoder
from tests.runs import SMOKE

pytestmark = pytest.mark.training
REWRITE = [*SMOKE, "task=rewrite", "debug.tiny_model=false", "generation.response_tokens=[12,16]"]
QUICK = [*REWRITE, "algorithm.iterations=1"]
"""The miniature itself: what a random model writes has no word in common with its prompt."""


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def own_pairs(tmp_path):
    """A file as ParaDetox has it; every third row has no rewrite."""
    rows = [
        {"toxic": row["toxic"], "neutral": row["neutral"] if place % 3 else []}
        for place, row in enumerate(rewrite_rows("train", 60))
    ]
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_every_record_shows_j_its_parts_and_bleu(tmp_path, capsys):
    summary = api.run(REWRITE, tmp_path / "run")
    for side in ("before", "after"):
        numbers = summary[side]
        assert 0 <= numbers["joint"] <= 1
        assert {"judge_joint", "similarity", "bleu", "rougeL"} <= set(numbers)
        assert not {"fluency", "perplexity"} & set(numbers)  # no classifier is named; references
        samples = lines_of(tmp_path / "run" / "samples.jsonl")
        joint = [row[f"joint_{side}"] for row in samples]
        assert numbers["joint"] == pytest.approx(sum(joint) / len(joint))
        for row in samples:
            assert row[f"joint_{side}"] == pytest.approx(
                (1 - row[f"toxicity_{side}"]) * row[f"similarity_{side}"], abs=1e-6
            )
    assert "ci95" in summary["change"]["bleu"]
    rows = lines_of(tmp_path / "run" / "metrics.jsonl")
    trained = [row for row in rows if row["iteration"]]
    for row in trained:
        assert row["score"] <= min(row["score_style"], row["score_similarity"])
        assert {"similarity", "multiplier_similarity", "slack_similarity"} <= set(row)
    chosen = summary["budget"]
    start = rows[0]["evaluation"]["similarity"]
    assert chosen["bounds"]["similarity"] == pytest.approx(0.75 * start)
    evaluated = {row["iteration"]: row["evaluation"] for row in rows if "evaluation" in row}
    assert chosen["joint"] == pytest.approx(evaluated[chosen["chosen_iteration"]]["joint"])
    report = (tmp_path / "run" / "report.html").read_text()
    assert "J: civil x similar x fluent" in report
    shown = capsys.readouterr().out
    assert "J: civil x similar x fluent" in shown
    assert "task=rewrite policy=flan_t5_base data=paradetox" in shown


def test_similarity_is_that_of_the_sentence_without_the_template(tmp_path):
    encoder = write_encoder(tmp_path / "encoder")
    own = [*QUICK, f"reward.encoder={encoder}", "reward.terms.fluency=1", "reward.probe=false"]
    own += ["reward.fluency.path=embedded:judge", "reward.fluency.label=neutral"]
    summary = api.run(own, tmp_path / "run")
    assert {"similarity", "fluency", "joint"} <= set(summary["after"])
    assert "similarity by encoder" in summary["scorers"]["reward"]
    template = parse_template(api.compose_settings(QUICK, tmp_path / "x").task.template)
    measure = Encoder(check_encoder(str(encoder)), torch.device("cpu"))
    rows = lines_of(tmp_path / "run" / "samples.jsonl")
    sources = [r["prompt"].removeprefix(template.head).removesuffix(template.tail) for r in rows]
    assert not any("polite" in source for source in sources)
    expected = measure.relevance(sources, [row["after"] for row in rows]).clamp(min=0)
    assert [row["similarity_after"] for row in rows] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("stage", ["sft", "detox"])
def test_a_users_own_pairs_are_found_by_their_usual_columns(stage, own_pairs, tmp_path):
    own = [*QUICK, "data=local", f"data.path={own_pairs}", f"stage={stage}"]
    own += ["data.split_fractions=[0.4,0.3,0.3]"]
    summary = api.run(own, tmp_path / "run")
    assert {"joint", "bleu"} <= set(summary["after"])
    if stage == "sft":
        assert summary["loss"]["after"] < summary["loss"]["before"]


def test_without_any_references_there_is_no_bleu_and_training_goes_on(tmp_path, monkeypatch):
    rows = [{"text": row["toxic"]} for row in rewrite_rows("train", 60)]
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = [*QUICK, "data=local", f"data.path={file}", "data.split_fractions=[0.4,0.3,0.3]"]
    summary = api.run(own, tmp_path / "run")
    assert {"joint", "perplexity"} <= set(summary["after"])
    assert not {"bleu", "rougeL"} & set(summary["after"])
    monkeypatch.setattr(build, "load_policy", None)  # it is told before weights load
    with pytest.raises(DetoxError, match=r"stage=sft learns from references"):
        api.run([*own, "stage=sft"], tmp_path / "sft")


def test_the_smoke_run_ends_though_all_its_scores_may_be_0(tmp_path):
    summary = api.run([*SMOKE, "task=rewrite", "algorithm.iterations=1"], tmp_path / "run")
    assert summary["parameters"]["base_unchanged"]


def test_a_decoder_only_policy_rewrites_too(tmp_path, capsys):
    summary = api.run([*QUICK, "policy=mini", "task.miniature=gptj"], tmp_path / "run")
    assert {"joint", "bleu"} <= set(summary["after"])
    assert "rewrites want that, or an adapter of stage=sft" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["policy.adapter=embedded:none"], r"policy\.adapter: .*embedded:rewrite"),
        (["reward=length"], r"reward\.function: .*reward\.terms_combine=sum"),
        (["reward.terms_combine=sum"], r"budget\.similarity: got 0.25, .*terms_combine=product"),
        (["reward.terms.similarity=0"], r"budget\.similarity: got 0.25"),
        (["reward.encoder=./nowhere"], r"no such folder.*`reward\.encoder`"),
        (["reward.terms.fluency=1"], r"reward\.fluency\.path: got null"),
        (["algorithm=trl_dpo"], r"encoder-decoder"),
        (["budget.similarity=2"], r"budget\.similarity: got 2.0, want .* 0 to 1"),
    ],
)
def test_what_cannot_work_is_refused_before_weights_load(overrides, message, tmp_path, monkeypatch):
    def loaded(*_arguments, **_options):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("lora_detox.run.build.load_policy", loaded)
    monkeypatch.setattr("lora_detox.run.build.load_scorers", loaded)
    with pytest.raises(DetoxError, match=message):
        api.run(["task=rewrite", "threads=1", *overrides], tmp_path / "run")


def test_the_miniature_rewrites_some_sentences_and_repeats_others(tmp_path):
    """What python -m lora_detox task=rewrite starts from."""
    overrides = ["stage=evaluate", "task=rewrite", "threads=1", "evaluation.prompts=60"]
    summary = api.run(overrides, tmp_path / "run")
    numbers = summary["models"][0]["sets"]["in_distribution"]
    assert 0.2 < numbers["toxicity"]["mean"] < 0.7
    assert numbers["similarity"] > 0.6
    assert numbers["bleu"] > 0.25
    rows = lines_of(tmp_path / "run" / "samples.jsonl")
    assert all(0 <= row["judge_joint"] <= 1 for row in rows)
