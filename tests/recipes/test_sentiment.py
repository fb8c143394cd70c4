"""The sentiment examples: halves share no review, all that is queued composes, levels are goals."""

import gzip
import json

import numpy as np
import pytest

from lora_detox.api import compose_settings
from recipes.lab.goal_table import markdown, picture
from recipes.lab.goals import Goal
from recipes.lab.judged import Judged, change_of
from recipes.lab.real import RealModels
from recipes.sentiment import reviews, run
from recipes.sentiment.examples import LABELS, control_goals

REVIEWS = [
    {
        "text": f"review {place} " + " ".join(f"word{place}x{n}" for n in range(150)),
        "sentiment": sign,
    }
    for place in range(40)
    for sign in [place % 2]
]


@pytest.fixture
def corpora(tmp_path):
    """Two small files of reviews."""
    for name in ("imdb.val", "imdb.test"):
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in REVIEWS)
    return tmp_path


def given(tmp_path, *words):
    options = ["--out", str(tmp_path / "out"), "--shared", str(tmp_path), "--seeds", "0,1", *words]
    return run.arguments(options)


def overrides_of(step):
    return [word for word in step.command[3:] if not word.startswith("hydra.run.dir")]


def test_halves_share_no_review_and_pieces_carry_the_label_of_theirs(corpora, tmp_path):
    reviews.write_reviews(corpora, tmp_path / "labelled")
    words = {}
    for half in reviews.HALVES:
        rows = [
            json.loads(line)
            for line in (tmp_path / "labelled" / f"{half}.jsonl").read_text().splitlines()
        ]
        words[half] = {word for row in rows for word in row["text"].split() if "x" in word}
        of_reviews = [row for row in rows if row["text"].startswith("review ")]
        assert len(rows) >= (1 + reviews.PIECES) * len(of_reviews) / 2
        lengths = [len(row["text"].split()) for row in rows]
        assert max(lengths) == reviews.WHOLE
        assert min(lengths) >= reviews.LENGTHS[0]
        for row in rows:
            place = int(next(w for w in row["text"].split() if "x" in w)[4:].split("x")[0])
            assert row["negative"] == 1 - REVIEWS[place]["sentiment"]
    assert not words["reward"] & words["judge"]
    assert all(words.values())
    tested = [
        path.read_text().splitlines() for path in reviews.test_sets(tmp_path / "labelled").values()
    ]
    assert [len(lines) for lines in tested] == [8, 16]


def test_texts_behind_a_prefix_are_of_the_half_that_the_judge_has_not_read(corpora, tmp_path):
    reviews.write_reviews(corpora, tmp_path / "labelled")
    file = reviews.prefixed_file(tmp_path / "labelled")
    texts = [json.loads(line)["text"] for line in file.read_text().splitlines()]
    assert texts
    signs = {1: "[positive]", 0: "[negative]"}
    for text in texts:
        sign, *words = text.split()
        place = int(next(w for w in words if "x" in w)[4:].split("x")[0])
        assert sign == signs[REVIEWS[place]["sentiment"]]
        assert reviews.half_of(REVIEWS[place]["text"]) == "reward"
        assert len(words) == reviews.LEARNED


def test_control_of_a_real_model_goes_on_from_the_adapter_of_its_fine_tuning(tmp_path):
    options, models = given(tmp_path), RealModels(home=tmp_path / "real")
    begun = {
        example.name: [word for word in step.command if word.startswith("policy.adapter=")]
        for example in run.chosen(options, models)
        for step in run.runs(options, example)[1].steps[:1]
    }
    one = next(one for one in run.chosen(options, models) if one.supervised)
    made = run.supervised(options, one).steps[0].done.parent / "adapter"
    assert begun.pop(one.name) == [f"policy.adapter={made}"]
    assert not any(begun.values())


def test_every_process_composes_and_leaves_a_file_of_its_own(tmp_path):
    options, models = given(tmp_path), RealModels(home=tmp_path / "real")
    examples = run.chosen(options, models)
    assert len(examples) == 4
    queue = [run.classifier(options, models, half) for half in LABELS]
    queue += [run.supervised(options, one) for one in examples if one.supervised]
    queue += [one for example in examples for one in run.runs(options, example)]
    steps = [step for one in queue for step in one.steps]
    assert len({step.done for step in steps}) == len(steps) == 2 + 1 + 4 * (1 + 2 * 2)
    for step in steps:
        compose_settings(overrides_of(step), tmp_path / "nothing")


def test_the_judge_and_the_reward_call_positive_what_the_recipe_calls_civil(tmp_path):
    options, models = given(tmp_path), RealModels(home=tmp_path / "real")
    (imdb,) = run.chosen(given(tmp_path, "--only", "smollm2_imdb"), models)
    scorers = compose_settings(overrides_of(run.runs(options, imdb)[0].steps[0]), tmp_path / "no")
    for half in LABELS:
        trained = overrides_of(run.classifier(options, models, half).steps[0])
        head = compose_settings(trained, tmp_path / "no").reward_model
        assert head.labels[0] == getattr(scorers, half).label
    assert scorers.reward.label != scorers.judge.label


@pytest.mark.parametrize("model", ["miniature", "smollm2"])
def test_control_is_judged_on_held_out_openings_after_either_prefix(tmp_path, model):
    options, models = given(tmp_path), RealModels(home=tmp_path / "real")
    (control,) = run.chosen(given(tmp_path, "--only", f"{model}_sentiment_control"), models)
    train, judged = (
        compose_settings(overrides_of(step), tmp_path / "nothing")
        for step in run.runs(options, control)[1].steps
    )
    sets = {"in_distribution": judged.data, **judged.evaluation.sets}
    prefixes = {name: one.prefixes for name, one in sets.items()}
    assert prefixes == {"in_distribution": ["[positive] "], "toxic": ["[negative] "], "benign": []}
    assert {goal.data for goal in control_goals()} == set(sets)
    assert len({one.path for one in sets.values()}) == 1
    splits = {tuple(one.split_fractions) for one in sets.values()}
    assert splits == {tuple(train.data.split_fractions)}
    assert train.data.prefixes == ["[positive] ", "[negative] "]
    assert {tuple(one.query_tokens) for one in sets.values()} == {tuple(train.data.query_tokens)}


def test_only_names_what_there_is(tmp_path):
    with pytest.raises(SystemExit, match=r"--only: got gpt3; want the beginning of one of minia"):
        run.chosen(given(tmp_path, "--only", "gpt3"), RealModels(home=tmp_path))


def judged(positive):
    """A hundred responses of which so many are judged positive."""
    judge = np.where(np.arange(100) < positive, 0.1, 0.9)
    columns = {"judge": judge, "tokens": np.full(100, 9.0), "nll": np.full(100, 18.0)}
    return Judged(columns=columns, distinct_2=0.9)


def test_a_goal_on_a_level_is_held_by_each_seed(tmp_path):
    base, good, bad = judged(60), judged(93), judged(88)
    goal = Goal(data="a", label="A", measure="judged_positive", least=0.9, level=True)
    level = change_of([good], base, "judged_positive", level=True)
    assert level.mean == pytest.approx(0.93)
    assert level.low < 0.93 < level.high
    assert level.low > 0.85
    assert goal.inside(0.93)
    assert not goal.inside(0.88)
    text = markdown({"a": base}, {"seed0": {"a": good}, "seed1": {"a": bad}}, [goal])
    row = text.splitlines()[2]
    assert "| 0.6 | 93.0 % | 88.0 % | 90.5 % [" in row
    assert row.endswith("| at least 90.0 % | 1 of 2 |")
    assert "Inside every bound: 1 of 2 (seed0)." in text
    picture({"a": base}, {"seed0": {"a": good}}, [goal], tmp_path / "picture.png")
    assert not (tmp_path / "picture.png").exists()  # a change is drawn, a level is not
