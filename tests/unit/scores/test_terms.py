"""Composite rewards: terms by hand, ensembles, and references that reach the terms."""

import math

import pytest
import torch

from lora_detox.errors import ScorerError
from lora_detox.scores import CompositeScorer, FunctionScorer, ScoreTerm, score_prompts
from lora_detox.scores.composite import EnsembleScorer, SignedScorer
from lora_detox.scores.terms import text_term
from lora_detox.types import PromptBatch, Scores


class Fixed:
    def __init__(self, score, toxicity):
        self.numbers, self.scorer_id = (score, toxicity), f"fixed{score}"

    def score(self, prompts, responses, **columns):
        score, toxicity = (torch.full((len(responses),), float(one)) for one in self.numbers)
        return Scores(score=score, toxicity=toxicity, parts={}, scorer_id=self.scorer_id)


def batch(texts, references):
    return PromptBatch(
        texts=texts,
        query_ids=torch.ones(len(texts), 1, dtype=torch.long),
        query_mask=torch.ones(len(texts), 1, dtype=torch.bool),
        references=references,
        row_ids=[f"r{i}" for i in range(len(texts))],
    )


def test_terms_by_hand():
    prompts = batch(["the cat sat", "a dog"], [["the cat sat down", "no"], []])
    responses = ["the cat sat", "nothing here at all"]
    rouge = score_prompts(text_term("rouge", 4), prompts, responses).score
    assert rouge.tolist() == pytest.approx([2 * 0.75 / 1.75, 0.0])
    length = score_prompts(text_term("length", 4), prompts, responses).score
    assert length.tolist() == pytest.approx([-math.log(4 / 3), 0.0])
    similarity = score_prompts(text_term("similarity", 4), prompts, responses).score
    assert similarity.tolist() == pytest.approx([1.0, 0.0])
    assert score_prompts(text_term("similarity", 4), prompts, ["", ""]).score.tolist() == [0.0, 0.0]
    with pytest.raises(ScorerError, match=r"no term `rogue`.*reward\.terms"):
        text_term("rogue", 4)


def test_a_composite_hands_references_to_its_terms():
    prompts = batch(["p"], [["good words"]])
    terms = {
        "toxicity": ScoreTerm(scorer=Fixed(2, 0.25), weight=1.0),
        "rouge": ScoreTerm(scorer=text_term("rouge", 4), weight=3.0),
    }
    composite = CompositeScorer(terms, toxicity_from="toxicity")
    scores = score_prompts(composite, prompts, ["good words"])
    assert scores.score.tolist() == [5.0]
    assert scores.toxicity.tolist() == [0.25]
    assert set(scores.parts) == {"toxicity", "rouge"}


def test_references_reach_the_terms_through_an_ensemble_and_signs():
    prompts = batch(["[negative] p", "p"], [["good words"], ["good words"]])
    signed = SignedScorer(
        EnsembleScorer([text_term("rouge", 4), text_term("rouge", 4)], "mean"), {"[negative]": -1.0}
    )
    assert score_prompts(signed, prompts, ["good words"] * 2).score.tolist() == [-1.0, 1.0]


def test_a_function_gets_the_columns_as_trl_hands_them_over():
    seen = {}

    def reward(prompts, completions, **columns):
        seen.update(columns)
        return [float(len(refs)) for refs in columns["references"]]

    scorer = FunctionScorer(reward, Fixed(0, 0.5))
    scores = score_prompts(scorer, batch(["p", "q"], [["a", "b"], []]), ["x", "y"])
    assert scores.score.tolist() == [2.0, 0.0]
    assert seen["row_ids"] == ["r0", "r1"]


def test_ensembles():
    members = [Fixed(1, 0.2), Fixed(3, 0.6)]
    least = EnsembleScorer(members, "minimum").score(["p"], ["x"])
    mean = EnsembleScorer(members, "mean").score(["p"], ["x"])
    assert (least.score.item(), least.toxicity.item()) == (1.0, pytest.approx(0.6))
    assert (mean.score.item(), mean.toxicity.item()) == (2.0, pytest.approx(0.4))
    with pytest.raises(ScorerError, match="minimum or mean"):
        EnsembleScorer(members, "median")


def test_a_prefix_turns_the_score_and_not_the_toxicity():
    scorer = SignedScorer(Fixed(2, 0.3), {"[negative]": -1.0, "[neutral]": 0.0})
    prompts = ["[negative] It was", "[positive] It was", "[neutral] So", "It was [negative]"]
    scores = scorer.score(prompts, ["x"] * 4)
    assert scores.score.tolist() == [-2.0, 2.0, 0.0, 2.0]
    assert scores.toxicity.tolist() == pytest.approx([0.3] * 4)
    assert scores.scorer_id == scorer.scorer_id
