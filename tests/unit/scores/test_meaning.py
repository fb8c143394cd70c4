"""Similarity to the prompt, fluency, and their product with style, on tiny random models."""

import pytest
import torch

from lora_detox.errors import ScorerError
from lora_detox.scores import (
    REWARD_KEYS,
    ClassifierScorer,
    CompositeScorer,
    Encoder,
    FluencyScorer,
    ProductScorer,
    ScoreTerm,
    SignedScorer,
    SimilarityScorer,
    check_encoder,
    check_fluency,
    check_scorer,
    probe_fluency,
    score_prompts,
)
from lora_detox.scores.terms import text_term
from lora_detox.types import PromptBatch, Scores
from tests.encoders import write_encoder

CPU = torch.device("cpu")


class Fixed:
    """A scorer whose numbers are given, one of each response."""

    def __init__(self, score, toxicity=None):
        self.numbers = torch.tensor(score), torch.tensor(toxicity or [0.0] * len(score))
        self.scorer_id = "fixed"

    def score(self, prompts, responses, **columns):
        score, toxicity = self.numbers
        return Scores(score=score, toxicity=toxicity, parts={}, scorer_id=self.scorer_id)


def product(similar, fluent, toxicity, **weights):
    numbers = {"similarity": similar, "fluency": fluent}
    weight = {name: float(weights.get(name, 1)) for name in ("style", *numbers)}
    style = ScoreTerm(scorer=Fixed([9.0] * len(toxicity), toxicity), weight=weight["style"])
    terms = {
        name: ScoreTerm(scorer=Fixed(values), weight=weight[name])
        for name, values in numbers.items()
    }
    return ProductScorer(style, terms)


def batch(texts, sources=(), references=None):
    return PromptBatch(
        texts=texts,
        query_ids=torch.ones(len(texts), 1, dtype=torch.long),
        query_mask=torch.ones(len(texts), 1, dtype=torch.bool),
        references=references or [[] for _ in texts],
        row_ids=[f"r{i}" for i in range(len(texts))],
        sources=list(sources),
    )


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = write_encoder(tmp_path_factory.mktemp("encoder"))
    return Encoder(check_encoder(str(folder), keys=REWARD_KEYS), CPU)


@pytest.fixture
def fluency(save_classifier):
    path = save_classifier(labels=("corrupt", "fluent"), name="fluency")
    return FluencyScorer(ClassifierScorer(path, label="fluent", output="softmax"))


def test_the_product_is_j_by_hand():
    scores = product([0.5, 1.0, 0.0], [0.8, 0.5, 1.0], [0.25, 1.0, 0.0]).score(["p"] * 3, ["r"] * 3)
    assert scores.score.tolist() == pytest.approx([0.75 * 0.5 * 0.8, 0.0, 0.0])
    assert scores.toxicity.tolist() == [0.25, 1.0, 0.0]
    assert set(scores.factors) == {"style", "similarity", "fluency"}
    assert scores.factors["style"].tolist() == [0.75, 0.0, 1.0]  # not the score of the classifier
    assert scores.parts == scores.factors


def test_weights_are_exponents():
    scorer = product([0.5], [0.25], [0.36], style=0.5, similarity=2, fluency=0)
    scores = scorer.score(["p"], ["r"])
    assert scores.score.tolist() == pytest.approx([0.8 * 0.25])
    assert scores.factors["similarity"].tolist() == [0.5]
    assert "^2" in scorer.scorer_id
    assert "1 - toxicity by fixed" in scorer.scorer_id


@pytest.mark.parametrize("weight", [-1.0, float("inf"), float("nan")])
def test_a_weight_that_is_no_exponent_is_refused(weight):
    with pytest.raises(ScorerError, match=r"similarity is .*want 0 or more.*reward\.terms"):
        product([0.5], [0.5], [0.5], similarity=weight)


@pytest.mark.parametrize("number", [-0.5, 1.5, float("nan")])
def test_a_factor_outside_0_to_1_is_refused(number):
    with pytest.raises(ScorerError, match=r"fluency .*outside 0 to 1.*terms_combine"):
        product([0.5, 0.5], [0.5, number], [0.5, 0.5]).score(["p"] * 2, ["r"] * 2)


def test_rounding_above_1_is_no_error_and_stays_in_0_to_1():
    assert product([1.0005], [1.0], [0.0]).score(["p"], ["r"]).score.tolist() == [1.0]


def test_references_and_no_references_reach_the_factors():
    style = ScoreTerm(scorer=Fixed([0.0, 0.0], [0.5, 0.5]), weight=1.0)
    rouge = {"rouge": ScoreTerm(scorer=text_term("rouge", 4), weight=1.0)}
    prompts = batch(["p", "q"], references=[["good words"], []])
    scores = score_prompts(ProductScorer(style, rouge), prompts, ["good words"] * 2)
    assert scores.score.tolist() == [0.5, 0.0]


def test_a_sign_of_the_prompt_leaves_the_factors():
    signed = SignedScorer(product([0.5], [0.5], [0.0]), {"[no]": -1.0})
    scores = signed.score(["[no] p"], ["r"])
    assert scores.score.tolist() == [-0.25]
    assert set(scores.factors) == {"style", "similarity", "fluency"}


def test_similarity_reads_the_prompt_without_its_template(encoder):
    scorer = SimilarityScorer(encoder)
    template = "sat on the mat: {}"
    prompts = batch([template.format("the cat")] * 2, sources=["the cat"] * 2)
    same, other = score_prompts(scorer, prompts, ["the cat", "mat"]).score.tolist()
    assert same == pytest.approx(1.0, abs=1e-5)
    assert other < 1
    expected = encoder.relevance(["the cat"], ["mat"]).clamp(min=0).item()
    assert other == pytest.approx(expected, abs=1e-6)
    bare = scorer.score(["the cat"], ["the cat"]).score.item()  # without columns: the prompt itself
    assert bare == pytest.approx(1.0, abs=1e-5)


def test_similarity_is_never_below_0_and_empty_texts_have_none(encoder):
    words = ["cat", "mat", "sat on", "q", "the the", "?!"]
    pairs = [(one, other) for one in words for other in words]
    cosine = encoder.relevance(*map(list, zip(*pairs, strict=True)))
    assert float(cosine.min()) < 0  # the tiny encoder has such pairs
    scores = SimilarityScorer(encoder).score(*map(list, zip(*pairs, strict=True))).score
    assert scores.tolist() == pytest.approx(cosine.clamp(min=0).tolist(), abs=1e-6)
    empty = SimilarityScorer(encoder).score(["the cat", "", "the cat"], ["", "cat", " \n"])
    assert empty.score.tolist() == [0.0, 0.0, 0.0]


def test_scorers_of_meaning_keep_the_contract(encoder, fluency):
    for scorer in (SimilarityScorer(encoder), fluency):
        check_scorer(scorer)
        assert scorer.score(["p"], ["x"]).toxicity.tolist() == [0.0]


def test_an_empty_response_is_not_fluent(fluency):
    empty, blank, words = fluency.score([""] * 3, ["", " \n", "the cat"]).score.tolist()
    assert (empty, blank) == (0.0, 0.0)
    assert 0 < words < 1


@pytest.mark.parametrize(
    ("changes", "label", "message"),
    [
        ({}, "fluid", r"no label `fluid`.*`reward\.fluency\.label`"),
        ({"problem_type": "multi_label_classification"}, "fluent", r"do not exclude each other"),
    ],
)
def test_a_classifier_without_a_fluent_label_is_refused(changes, label, message, save_classifier):
    path = save_classifier(labels=("corrupt", "fluent"), name="classifier", **changes)
    with pytest.raises(ScorerError, match=message):
        check_fluency(path, label, "reward.fluency")


def test_a_missing_model_is_answered_by_its_own_key(tmp_path):
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(ScorerError, match=r"no such folder.*`reward\.fluency\.path`"):
        check_fluency(nowhere, "fluent", "reward.fluency")
    with pytest.raises(ScorerError, match=r"no such folder.*`reward\.encoder`"):
        check_encoder(nowhere, keys=REWARD_KEYS)


class Ordered:
    """Fluent is what begins with a capital letter, or the opposite."""

    def __init__(self, sign):
        self.sign, self.scorer_id = sign, "ordered"

    def score(self, prompts, responses, **columns):
        capital = torch.tensor([float(text[:1].isupper()) for text in responses])
        score = capital if self.sign > 0 else 1 - capital
        return Scores(
            score=score, toxicity=torch.zeros(len(score)), parts={}, scorer_id=self.scorer_id
        )


def test_a_fluency_of_the_wrong_sign_is_noticed():
    texts = ["We met at noon", "The door is open"]
    probe_fluency(Ordered(1), "reward.fluency", texts)
    for texts_of_any_script in (texts, ["Привет всем", "Дверь открыта"]):
        with pytest.raises(ScorerError, match=r"words backwards.*reward\.fluency\.label"):
            probe_fluency(Ordered(-1), "reward.fluency", texts_of_any_script)


def test_similarity_by_an_encoder_in_a_sum(encoder):
    terms = {
        "toxicity": ScoreTerm(scorer=Fixed([2.0], [0.25]), weight=1.0),
        "similarity": ScoreTerm(scorer=SimilarityScorer(encoder), weight=3.0),
    }
    scorer = CompositeScorer(terms, toxicity_from="toxicity")
    scores = score_prompts(scorer, batch(["Say: the cat"], ["the cat"]), ["the cat"])
    assert scores.score.item() == pytest.approx(5.0, abs=1e-4)
    assert not scores.factors


def test_common_words_are_those_of_the_prompt_without_its_template():
    prompts = batch(["Rewrite this: the cat"], sources=["the cat"])
    similarity = score_prompts(text_term("similarity", 4), prompts, ["the cat"]).score
    assert similarity.tolist() == pytest.approx([1.0])
