"""The kept response is the one with the highest score; the others are counted."""

import torch

from lora_detox.decoding.best_of_n import BestOfN
from lora_detox.rollout import generate_responses
from lora_detox.types import Sampling, Scores
from tests.tiny import tiny_policy, tiny_prompts

GENERATION = {"response_tokens": (3, 8), "batch_size": 3}


class CountsAWord:
    """Likes the responses that have one word most often."""

    scorer_id = "counts w9"

    def score(self, prompts, responses, **columns):
        counts = torch.tensor([float(one.split().count("w9")) for one in responses])
        return Scores(score=counts, toxicity=0 * counts, parts={}, scorer_id=self.scorer_id)


def test_the_best_of_the_draws_is_kept():
    policy, sampling = tiny_policy("gptj"), Sampling(temperature=1.5)
    prompts = tiny_prompts(policy, [5, 3, 8, 2, 6, 4, 7])
    scorer = CountsAWord()
    draws = [
        generate_responses(policy, prompts, sampling, **GENERATION, seed=4 + k) for k in range(6)
    ]
    kept = BestOfN(6, scorer)(policy, prompts, sampling, **GENERATION, seed=4)
    scores = torch.stack([scorer.score(prompts.texts, draw.texts).score for draw in draws])
    assert scores.max(dim=0).values.sum() > scores[0].sum()
    ours = scorer.score(prompts.texts, kept.texts).score
    assert torch.equal(ours, scores.max(dim=0).values)
    for row, number in enumerate(scores.argmax(dim=0).tolist()):
        draw = draws[number]
        assert kept.texts[row] == draw.texts[row]
        assert torch.equal(kept.ids[row][kept.mask[row]], draw.ids[row][draw.mask[row]])
        assert torch.equal(kept.logprobs[row][kept.mask[row]], draw.logprobs[row][draw.mask[row]])
    tokens = sum(int(draw.mask.sum()) for draw in draws)
    assert kept.discarded_tokens + int(kept.mask.sum()) == tokens


def test_of_equal_ones_the_first_which_is_that_of_plain_decoding():
    policy, sampling = tiny_policy("t5"), Sampling()
    prompts = tiny_prompts(policy, [5, 3, 8])

    class LikesAll(CountsAWord):
        def score(self, prompts, responses, **columns):
            zero = torch.zeros(len(responses))
            return Scores(score=zero, toxicity=zero, parts={}, scorer_id="all")

    plain = generate_responses(policy, prompts, sampling, **GENERATION, seed=4)
    kept = BestOfN(3, LikesAll())(policy, prompts, sampling, **GENERATION, seed=4)
    assert kept.texts == plain.texts
