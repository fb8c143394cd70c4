"""One prompt put to the original and the detoxified model: whose texts, which numbers."""

from dataclasses import replace

import pytest
import torch

from lora_detox.builders.policy import backbone_plan
from lora_detox.builders.scorers import load_scorers
from lora_detox.errors import DataError, SettingsError
from lora_detox.interactive.answers import Question, answers
from lora_detox.policy.adapter import AdapterPlan
from lora_detox.policy.loading import load_policy
from lora_detox.policy.strength import at_strength
from lora_detox.prompts.batching import fixed_batches, repeat_prompts
from lora_detox.prompts.rows import PromptRow
from lora_detox.rollout import generate_responses
from lora_detox.types import Sampling

PROMPT = "Nobody here wants your opinion, you"


@pytest.fixture
def ask(session):
    question = replace(session.first, prompt=PROMPT)

    def asked(**changes):
        own = session.runs[0].settings
        return answers(session.policies[0], session.scorers, replace(question, **changes), own)

    return asked


def texts(given):
    return [one.text for one in given]


def generated(policy, count, seed, sampling=Sampling()):  # noqa: B008 (frozen)
    """The same prompt through the rollout, with nothing of stage=chat."""
    row = PromptRow(row_id="x", prompt=PROMPT, references=[], toxicity=None)
    (batch,) = fixed_batches(
        [row],
        policy.tokenizer,
        max_query_tokens=512,
        padding_side="left",
        batch_size=1,
        add_special_tokens=False,
    )
    asked = repeat_prompts(batch, count)
    options = {"response_tokens": (6, 6), "batch_size": 32, "seed": seed}
    return generate_responses(policy, asked, sampling, **options).texts


def test_both_models_answer_as_the_rollout_does(session, ask):
    (policy,) = session.policies
    both = ask(samples=3, seed=5, strength=0.5)
    bare = load_policy(
        backbone_plan(session.runs[0].settings, str(session.runs[0].plan.path)),
        AdapterPlan(rank=2, alpha=2.0),
    )
    assert texts(both.original) == generated(bare, 3, 5)
    with at_strength(policy, 0.5):
        assert texts(both.detoxified) == generated(policy, 3, 5)
    assert texts(ask(samples=3, seed=5).detoxified) == generated(policy, 3, 5)
    sampling = Sampling(temperature=0.7, top_p=0.9, top_k=5)
    narrow = ask(samples=3, seed=5, temperature=0.7, top_p=0.9, top_k=5)
    assert texts(narrow.detoxified) == generated(policy, 3, 5, sampling)


def test_strength_0_is_the_original_and_1_is_not(ask):
    both = ask(samples=4, strength=0.0)
    assert both.detoxified == both.original
    whole = ask(samples=4, strength=1.0)
    assert whole.original == both.original
    assert texts(whole.detoxified) != texts(whole.original)


def test_seeds_repeat_and_temperature_0_has_none(ask):
    assert ask(seed=1) == ask(seed=1)
    assert texts(ask(seed=1, samples=4).original) != texts(ask(seed=2, samples=4).original)
    likeliest = ask(temperature=0, samples=2, seed=1)
    assert len(set(texts(likeliest.original))) == 1
    assert likeliest == ask(temperature=0, samples=2, seed=2)


def test_scores_are_those_of_reward_and_judge(session, ask):
    both = ask(samples=3)
    reward, judge = load_scorers(session.runs[0].settings, torch.device("cpu"))
    for side in (both.original, both.detoxified):
        rewarded = reward.score([PROMPT] * 3, texts(side))
        judged = judge.score([PROMPT] * 3, texts(side))
        assert [one.score for one in side] == rewarded.score.tolist()
        assert [one.toxicity["reward"] for one in side] == rewarded.toxicity.tolist()
        assert [one.toxicity["judge"] for one in side] == judged.toxicity.tolist()
        assert all(1 <= one.tokens <= 6 for one in side)


def test_the_judge_alone_gives_no_score(session):
    judge = {"judge": session.scorers["judge"]}
    both = answers(
        session.policies[0], judge, replace(session.first, prompt="You"), session.runs[0].settings
    )
    assert both.original[0].score is None
    assert both.original[0].toxicity.keys() == {"judge"}


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        (
            {"strength": 1.6},
            SettingsError,
            r"chat\.strength: got 1\.6, want a number from 0 to 1\.5",
        ),
        ({"strength": float("nan")}, SettingsError, r"chat\.strength: got nan"),
        ({"samples": 0}, SettingsError, r"chat\.samples: got 0, want 1 to 16"),
        ({"samples": 10**9}, SettingsError, r"chat\.samples: got 1000000000"),
        ({"new_tokens": 0}, SettingsError, r"chat\.new_tokens: got 0"),
        ({"new_tokens": 2000}, SettingsError, r"chat\.new_tokens"),
        ({"temperature": -1.0}, SettingsError, r"chat\.temperature: got -1\.0"),
        ({"temperature": float("inf")}, SettingsError, r"chat\.temperature: got inf"),
        ({"top_p": 0.0}, SettingsError, r"chat\.top_p: got 0\.0"),
        ({"top_k": -1}, SettingsError, r"chat\.top_k: got -1"),
        ({"seed": -1}, SettingsError, r"chat\.seed: got -1"),
        ({"seed": 2**64}, SettingsError, r"chat\.seed: got 18446744073709551616"),
        ({"prompt": " \n\t"}, DataError, "the prompt is empty"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_its_key(ask, changes, error, match):
    with pytest.raises(error, match=match):
        ask(**changes)


def test_any_text_is_a_prompt_and_a_long_one_is_cut(session, ask):
    assert not ask(prompt="half a character \ud800, \x00 and \x1b[2J").was_cut
    assert not ask().was_cut
    session.runs[0].settings.data.max_query_tokens, whole = 16, 512
    try:
        assert ask(prompt="word " * 300).was_cut
    finally:
        session.runs[0].settings.data.max_query_tokens = whole


def test_a_question_has_the_ranges_of_the_settings():
    question = Question(prompt="x", temperature=0)
    assert question.sampling(0).greedy
    assert question.sampling(99).min_new_tokens == question.new_tokens
