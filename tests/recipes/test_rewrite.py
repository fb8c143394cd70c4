"""The recipe of rewriting: texts, what is queued, and the table of results that were made here."""

import gzip
import json
from random import Random

import numpy as np
import pytest

from lora_detox import api
from lora_detox.api import compose_settings
from lora_detox.embedded.rewrites import rewrite_rows
from lora_detox.metrics import names
from recipes.lab.pairs import in_reward_half
from recipes.lab.real import RealModels
from recipes.rewrite import baselines, run
from recipes.rewrite.baselines import DELETION, HUMAN, ITSELF
from recipes.rewrite.table import (
    RL,
    SFT,
    Answers,
    answers_of,
    level,
    markdown,
    read_systems,
    samples,
    verdict,
    write_report,
)
from recipes.rewrite.texts import Texts, corrupted, read_pairs, split_pairs, write_texts

TEMPLATE = compose_settings(["task=rewrite"], "nothing").task.template
SCORING = [
    "task=rewrite",
    "policy=mini",
    "reward.terms.fluency=1",
    "reward.fluency.path=embedded:judge",  # stands in: nothing here depends on what it learned
    "reward.fluency.label=neutral",
    "reward.probe=false",
    "threads=1",
]


def write_rows(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole recipe on the miniature: its bare T5 stands for SFT, its adapter for two RL seeds."""
    out = tmp_path_factory.mktemp("rewrite")
    texts = Texts(folder=out / "texts")
    write_rows(texts.pairs("train"), rewrite_rows("train", 200))
    write_rows(texts.pairs("test"), rewrite_rows("test", 12))
    job = {
        "overrides": SCORING,
        "train": str(texts.pairs("train")),
        "test": str(texts.pairs("test")),
        "target": str(out / "baselines" / "samples.jsonl"),
    }
    write_rows(out / "baselines" / "job.json", [job])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["baselines", str(out / "baselines" / "job.json")])
        baselines.main()
    for name, policy in (("sft", "mini"), ("seed0", "mini_rewrite"), ("seed1", "mini_rewrite")):
        overrides = [one for one in SCORING if not one.startswith("policy")]
        overrides += [f"policy={policy}", "data=local", f"data.path={texts.pairs('train')}"]
        overrides += [f"data.test_path={texts.pairs('test')}", "stage=evaluate"]
        overrides += ["evaluation.prompts=12", "evaluation.greedy=true"]
        api.run(overrides, out / name / "evaluate")
    return out, read_pairs(texts.pairs("test"))


@pytest.mark.recipe
def test_the_table_of_real_results(finished, capsys):
    out, pairs = finished
    systems = read_systems(out, pairs, TEMPLATE)
    assert list(systems) == [ITSELF, DELETION, SFT, RL, HUMAN]
    assert len(systems[RL].columns) == 2
    for one in systems.values():
        for columns in one.columns:
            whole = columns["style"] * columns[names.SIMILARITY] * columns[names.FLUENCY]
            np.testing.assert_allclose(columns[names.JUDGE_JOINT], whole, atol=1e-5)
    joint = {name: level(names.JUDGE_JOINT, one).value for name, one in systems.items()}
    assert joint[HUMAN] > joint[DELETION] > joint[ITSELF]
    assert level(names.SIMILARITY, systems[ITSELF]).value == pytest.approx(1.0, abs=1e-5)
    assert joint[RL] > joint[SFT]  # the bare T5 summarises
    write_report(out, out / "texts" / "test.jsonl", TEMPLATE)
    text = (out / "table.md").read_text()
    assert text.strip() in capsys.readouterr().out
    assert "SFT + RL (2 seeds)" in text
    assert "SFT + RL less SFT" in text
    assert "similarity is not lower" in text
    shown = (out / "samples.md").read_text()
    assert all(shown.count(f"- {name}: ") == 12 for name in (DELETION, SFT, RL, HUMAN))


@pytest.mark.recipe
def test_a_missing_answer_is_said(finished, tmp_path):
    out, pairs = finished
    other = [*pairs, {"toxic": "never asked", "neutral": ["x"]}]
    with pytest.raises(SystemExit, match=r"answered 12 of 13 .*never asked"):
        read_systems(out, other, TEMPLATE)
    write_report(tmp_path, tmp_path / "none.jsonl", TEMPLATE)  # nothing is there: no error


def answers(joint, seeds=1, responses=("a b c d",)):
    rows = [
        {
            "response": responses[place % len(responses)],
            names.JUDGE_TOXICITY: 1 - number,
            names.JUDGE_JOINT: number,
            names.JOINT: number,
            names.SIMILARITY: 0.5,
            names.FLUENCY: 1.0,
        }
        for place, number in enumerate(joint)
    ]
    pairs = [{"toxic": f"t{place}", "neutral": ["a b c d", "x"]} for place in range(len(joint))]
    return answers_of([rows] * seeds, pairs, human=False)


def test_intervals_pair_the_sentences():
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 0.9, 80)
    systems = {SFT: answers(start), RL: answers(start + 0.05, seeds=3)}
    gain = level(names.JUDGE_JOINT, systems[RL], systems[SFT])
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.05, 0.05, 0.05))
    whole = level(names.JUDGE_JOINT, systems[SFT])
    assert whole.low < start.mean() < whole.high
    assert "rises clear of zero" in verdict(systems)
    assert "not lower" in verdict(systems)
    assert "does not rise" in verdict({SFT: systems[RL], RL: systems[SFT]})
    assert "not both" in verdict({SFT: systems[SFT]})
    assert "+0.050 [+0.050, +0.050]" in markdown(systems, 100)
    assert "a b c d" in samples(systems, [{"toxic": "t", "neutral": ["n"]}] * 80)


def test_humans_are_compared_with_their_other_references():
    pairs = [{"toxic": "t", "neutral": ["a b c d", "a b c d e"]}, {"toxic": "u", "neutral": ["z"]}]
    rows = [
        {
            "response": pair["neutral"][0],
            **dict.fromkeys(
                (
                    names.JUDGE_TOXICITY,
                    names.JUDGE_JOINT,
                    names.JOINT,
                    names.SIMILARITY,
                    names.FLUENCY,
                ),
                0.5,
            ),
        }
        for pair in pairs
    ]
    found: Answers = answers_of([rows], pairs, human=True)
    assert level(names.BLEU, found).value == pytest.approx(np.exp(1 - 5 / 4))
    assert level(names.BLEU, answers_of([rows], pairs, human=False)).value == 1.0


def test_word_deletion_knows_what_rewrites_avoid():
    pairs = [
        {"toxic": f"the {w} train is late", "neutral": ["the train is late"]}
        for w in ("Stupid", "dumb", "stupid", "dumb", "stupid")
    ] * 400
    words = baselines.toxic_words(pairs)
    assert {"stupid", "dumb"} <= words
    assert not words & {"the", "train", "late"}
    assert baselines.without("What a STUPID, dumb! train.", words) == "What a train."
    assert baselines.without("dumb", words) == ""


def test_splits_share_no_text_and_the_judge_reads_no_test_pair(tmp_path):
    rows = [
        {"toxic": f"rude {place}", "neutral": [f"fine {place % 150}", f"rude {place}"]}
        for place in range(400)
    ]
    rows.append({"toxic": "same", "neutral": ["same"]})  # nothing rewritten
    with gzip.open(tmp_path / "pairs.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    pairs = read_pairs(tmp_path / "pairs.jsonl.gz")
    assert len(pairs) == 400
    splits = split_pairs(pairs, 30)
    assert {name: len(one) for name, one in splits.items()}["test"] == 30
    sides = {
        name: {text for pair in one for text in (pair["toxic"], *pair["neutral"])}
        for name, one in splits.items()
    }
    assert all(map(in_reward_half, sides["test"]))
    assert sides["test"].isdisjoint(sides["train"] | sides["validation"])
    assert not {p["toxic"] for p in splits["train"]} & {p["toxic"] for p in splits["validation"]}
    texts = write_texts(tmp_path / "pairs.jsonl.gz", tmp_path / "texts", test=30)
    assert read_pairs(texts.pairs("test")) == splits["test"]


def test_faults_change_every_sentence_and_add_no_word():
    rng, sentence = Random(0), "we met at the old station and walked home along the river"
    broken = [corrupted(sentence, rng) for _ in range(200)]
    assert sentence not in broken
    assert len(set(broken)) > 150
    assert {word for one in broken for word in one.split()} <= set(sentence.split())
    lengths = [len(one.split()) for one in broken]
    assert min(lengths) < 12 < max(lengths)
    assert corrupted("too short", rng) is None
    assert corrupted("a a a a", rng) != "a a a a"


def test_every_process_of_the_queue_composes(tmp_path):
    given = run.arguments(
        ["--out", str(tmp_path / "out"), "--seeds", "0,1", "algorithm.kl.coef=0.1"]
    )
    given.shared = str(tmp_path)
    models, texts = RealModels(home=tmp_path / "real"), Texts(folder=tmp_path / "texts")
    groups = run.Queue(given, models, texts).runs()
    assert [[one.name for one in group] for group in groups] == [
        ["fluency"],
        ["baselines", "SFT"],
        ["seed 0", "seed 1"],
    ]
    steps = [step for group in groups for one in group for step in one.steps]
    dones = [step.done for step in steps]
    assert len(set(dones)) == len(dones)
    composed = []
    for step in steps:
        if step.command[2] == "lora_detox":
            words = [w for w in step.command[3:] if not w.startswith("hydra.run.dir")]
            composed.append(compose_settings(words, tmp_path / "nothing"))
    assert [one.stage.value for one in composed] == [
        "reward_model",
        "sft",
        "evaluate",
        *(["detox", "evaluate"] * 2),
    ]
    rl = composed[3]
    assert rl.policy.adapter == str(tmp_path / "out" / "sft" / "train" / "adapter")
    assert (rl.algorithm.kl.coef, composed[5].seed) == (0.1, 1)
    assert rl.reward.fluency.path == str(tmp_path / "out" / "fluency" / "classifier")
    assert rl.reward.terms_combine.value == "product"
    (job,) = [json.loads((tmp_path / "out" / "baselines" / "job.json").read_text())]
    compose_settings(job["overrides"], tmp_path / "nothing")
