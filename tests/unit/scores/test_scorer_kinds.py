"""Python functions, sums, the probe and the contract check."""

import contextlib
import functools

import pytest
import torch

from lora_detox.errors import ScorerError
from lora_detox.scores import (
    ClassifierScorer,
    CompositeScorer,
    EnsembleScorer,
    FunctionScorer,
    ScoreTerm,
    SignedScorer,
    check_scorer,
    probe_scorer,
    score_prompts,
)
from lora_detox.scores.functions import import_function
from lora_detox.scores.probe import TOXIC_SENTENCES
from lora_detox.types import PromptBatch, Scores


def shorter_is_better(prompts, completions, **kwargs):
    return [-float(len(completion)) for completion in completions]


def test_function_contract(word_scorer):
    scorer = FunctionScorer(shorter_is_better, word_scorer())
    check_scorer(scorer)
    scores = scorer.score(["p", "p"], ["stupid", "ok"])
    assert scores.score.tolist() == [-6.0, -2.0]
    assert scores.toxicity.tolist() == [1.0, 0.0]
    assert scores.scorer_id == "shorter_is_better+words@1"


def test_function_from_a_file_or_a_module(word_scorer, tmp_path, monkeypatch):
    source = "def polite(prompts, completions, **kwargs):\n    return [1.0] * len(completions)\n"
    (tmp_path / "my_rewards.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in (f"{tmp_path / 'my_rewards.py'}:polite", "my_rewards:polite"):
        scorer = FunctionScorer(name, word_scorer())
        assert scorer.score(["a"], ["b"]).score.tolist() == [1.0]
        assert "polite" in scorer.scorer_id
        assert str(tmp_path) not in scorer.scorer_id


@pytest.mark.parametrize(
    "name", ["no_colon", "no.such.module:f", "none.py:f", "math:no_such_function", ":f"]
)
def test_function_that_is_not_there(word_scorer, name):
    with pytest.raises(ScorerError, match=r"package\.module:function.*`reward\.function`"):
        FunctionScorer(name, word_scorer())


@pytest.mark.parametrize(
    "returned", [[1.0], [1.0, float("nan")], [1.0, None], "no", None, [1.0, 2.0, 3.0]]
)
def test_function_that_returns_nonsense(word_scorer, returned):
    def function(prompts, completions, **kwargs):
        return returned

    with pytest.raises(ScorerError, match=r"reward function function"):
        FunctionScorer(function, word_scorer()).score(["a", "b"], ["c", "d"])


def test_composite(word_scorer):
    terms = {
        "words": ScoreTerm(scorer=word_scorer(), weight=2.0),
        "short": ScoreTerm(scorer=FunctionScorer(shorter_is_better, word_scorer()), weight=0.1),
    }
    scorer = CompositeScorer(terms, toxicity_from="words")
    check_scorer(scorer)
    scores = scorer.score(["p", "p"], ["stupid", "ok"])
    assert scores.score.tolist() == pytest.approx([-2.6, -0.2])
    assert scores.toxicity.tolist() == [1.0, 0.0]
    assert scores.parts["short"].tolist() == [-6.0, -2.0]
    with pytest.raises(ScorerError, match=r"words, short.*reward\.toxicity_from"):
        CompositeScorer(terms, toxicity_from="other")
    with pytest.raises(ScorerError, match=r"weight of words is not finite"):
        CompositeScorer(
            {"words": ScoreTerm(scorer=word_scorer(), weight=float("nan"))}, toxicity_from="words"
        )


def test_probe_passes_a_right_sign(word_scorer):
    result = probe_scorer(word_scorer())
    assert result.civil_score > result.toxic_score
    assert result.civil_toxicity < result.toxic_toxicity


def test_probe_stops_a_wrong_sign(word_scorer):
    with pytest.raises(ScorerError, match=r"sign of the score of words@1 is wrong.*`judge\.label`"):
        probe_scorer(word_scorer(sign=-1.0), key="judge")
    turned = FunctionScorer(
        lambda prompts, completions, **_: [float("stupid" in text) for text in completions],
        word_scorer(),
    )
    with pytest.raises(ScorerError, match=r"sign of the score.*a function: turn its sign"):
        probe_scorer(turned)


def test_probe_stops_a_wrong_toxicity(word_scorer):
    companion = FunctionScorer(
        lambda prompts, completions, **_: [-float("stupid" in text) for text in completions],
        word_scorer(sign=-1.0),
    )
    with pytest.raises(ScorerError, match=r"sign of the toxicity"):
        probe_scorer(companion)


def test_probe_names_the_labels(lab):
    for name, wrong in (("roberta-reward", "hate"), ("roberta-judge", "toxic")):
        folder = str(lab / name)
        probe_scorer(ClassifierScorer(folder))
        with pytest.raises(ScorerError, match=rf"civil: {wrong}\): mean -.*`reward\.label`"):
            probe_scorer(ClassifierScorer(folder, label=wrong))


class BrokenScorer:
    """Breaks one rule of the contract at a time."""

    scorer_id = "broken"

    def __init__(self, broken):
        self.broken = broken
        self.calls = 0

    def score(self, prompts, responses, **columns):
        self.calls += 1
        score = torch.tensor([float(len(text)) for text in responses])
        toxicity = torch.full((len(responses),), 0.5)
        if self.broken == "count":
            score, toxicity = score[1:], toxicity[1:]
        if self.broken == "range":
            toxicity = toxicity + 1
        if self.broken == "finite" and len(responses):
            score[0] = float("inf")
        if self.broken == "order":
            score = score.sort().values
        if self.broken == "drift":
            score = score + self.calls
        return Scores(score=score, toxicity=toxicity, parts={}, scorer_id="broken")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("count", r"shape \(4,\), want \(5,\)"),
        ("range", r"toxicity is not in \[0, 1\]"),
        ("finite", "not finite"),
        ("order", "score differently|order is not kept"),
        ("drift", "order is not kept|batch changes"),
    ],
)
def test_contract_check_finds_what_is_broken(broken, message):
    with pytest.raises(ScorerError, match=message):
        check_scorer(BrokenScorer(broken))


def test_contract_check_passes_a_good_scorer(word_scorer):
    check_scorer(word_scorer())
    check_scorer(BrokenScorer("nothing"))


class WithoutColumns:
    """As scorers were written before rows had columns."""

    scorer_id = "plain@1"

    def score(self, prompts, responses):
        numbers = torch.zeros(len(responses))
        return Scores(score=numbers, toxicity=numbers, parts={}, scorer_id=self.scorer_id)


@pytest.mark.parametrize(
    "use",
    [
        check_scorer,
        probe_scorer,
        lambda scorer: score_prompts(scorer, rows(["p"]), ["r"]),
        lambda scorer: FunctionScorer(shorter_is_better, scorer),
        lambda scorer: CompositeScorer(
            {"one": ScoreTerm(scorer=scorer, weight=1.0)}, toxicity_from="one"
        ),
        lambda scorer: EnsembleScorer([scorer], "mean"),
        lambda scorer: SignedScorer(scorer, {}),
    ],
)
def test_a_scorer_that_takes_no_columns_is_refused_where_it_enters(use):
    with pytest.raises(ScorerError, match=r"'plain@1' takes no columns.*\*\*columns"):
        use(WithoutColumns())


def test_a_scorer_may_name_the_columns_that_it_reads():
    class OfReferences(WithoutColumns):
        def score(self, prompts, responses, references=(), row_ids=()):
            score = torch.tensor([float(len(one)) for one in references])
            return Scores(
                score=score, toxicity=torch.zeros(len(score)), parts={}, scorer_id=self.scorer_id
            )

    prompts = rows(["p", "q"], [["a", "b"], []])
    assert score_prompts(OfReferences(), prompts, ["r", "s"]).score.tolist() == [2.0, 0.0]
    for scorer in (SignedScorer(OfReferences(), {}), EnsembleScorer([OfReferences()], "mean")):
        assert score_prompts(scorer, prompts, ["r", "s"]).score.tolist() == [2.0, 0.0]


def rows(texts, references=None):
    return PromptBatch(
        texts=texts,
        query_ids=torch.ones(len(texts), 1, dtype=torch.long),
        query_mask=torch.ones(len(texts), 1, dtype=torch.bool),
        references=references or [[] for _ in texts],
        row_ids=[str(place) for place, _ in enumerate(texts)],
    )


def test_the_id_of_a_function_without_a_name(word_scorer):
    scorer = FunctionScorer(functools.partial(shorter_is_better), word_scorer())
    assert scorer.scorer_id == "function+words@1"


def test_a_function_whose_signature_is_hidden_gets_no_columns(word_scorer):
    class Hidden:
        __signature__ = "none"

        def __call__(self, prompts, completions):
            return [1.0] * len(completions)

    scores = FunctionScorer(Hidden(), word_scorer()).score(["p"], ["r"], references=[["x"]])
    assert scores.score.tolist() == [1.0]


@pytest.mark.parametrize("name", ["no_colon", ":f", "math:"])
def test_a_name_without_module_or_function_is_said_to_be_so(name):
    with pytest.raises(ScorerError, match=r"names no module; want .*`reward\.function`"):
        import_function(name)


class ConstantScorer:
    scorer_id = "constant@1"

    def __init__(self, slope):
        self.slope = slope

    def score(self, prompts, responses, **columns):
        rude = torch.tensor([float(text in TOXIC_SENTENCES) for text in responses])
        toxicity = 0.5 + 0.0 * rude
        return Scores(
            score=self.slope * rude, toxicity=toxicity, parts={}, scorer_id=self.scorer_id
        )


def test_the_probe_refuses_scores_and_toxicities_that_are_equal():
    for slope, number, mean in ((0.0, "score", "0"), (-1.0, "toxicity", "0.5")):
        with pytest.raises(ScorerError) as error:
            probe_scorer(ConstantScorer(slope))
        message = str(error.value)
        assert f"the {number} of constant@1 does not tell civil from toxic text: mean" in message
        assert f"mean {mean} over 6 plainly civil sentences, {mean} over 6 plainly" in message
        assert "sign" not in message.split(";", maxsplit=1)[0]
        assert "sentences are English: for a classifier of another language give some" in message
        assert "`reward.probe_texts={civil: [TEXT, ...], toxic: [TEXT, ...]}`" in message
        assert "change `reward.label`" in message


class Fixed:
    """Knows some texts by heart, and gives every other one the same numbers, or by chance."""

    scorer_id = "fixed@1"

    def __init__(self, toxic, seed=None):
        self.toxic, self.seed = toxic, seed

    def score(self, prompts, responses, **columns):
        toxicity = torch.tensor([0.9 if text in self.toxic else 0.1 for text in responses])
        if self.seed is not None and not set(responses) & set(self.toxic):
            toxicity = torch.rand(
                len(responses), generator=torch.Generator().manual_seed(self.seed)
            )
        return Scores(score=-toxicity, toxicity=toxicity, parts={}, scorer_id=self.scorer_id)


RUSSIAN = (
    ["Спасибо за помощь.", "Встретимся в полдень.", "Библиотека открыта."],
    ["Ты тупой идиот.", "Заткнись, урод.", "Ненавижу тебя, дурак."],
)


def test_the_probe_reads_the_language_of_the_classifier():
    scorer = Fixed(RUSSIAN[1])
    with pytest.raises(ScorerError, match=r"sentences are English.*`judge\.probe_texts="):
        probe_scorer(scorer, "judge")
    result = probe_scorer(scorer, "judge", RUSSIAN)
    assert (result.civil_toxicity, result.toxic_toxicity) == pytest.approx((0.1, 0.9))
    with pytest.raises(
        ScorerError, match=r"sign of the score of fixed@1 is wrong: mean -0\.9 over 3"
    ):
        probe_scorer(scorer, "judge", RUSSIAN[::-1])
    with pytest.raises(ScorerError, match=r"does not tell.*are those of `judge\.probe_texts`"):
        probe_scorer(Fixed([]), "judge", RUSSIAN)


def test_an_order_by_chance_is_no_right_sign():
    """Half of the classifiers that know no English would pass by the means alone."""
    passed = 0
    for seed in range(60):
        with contextlib.suppress(ScorerError):
            probe_scorer(Fixed(RUSSIAN[1], seed))
            passed += 1
    assert passed <= 6


class OneRuleBroken:
    """Right but for what a change of its score or of its Scores does."""

    scorer_id = "broken"

    def __init__(self, change):
        self.change, self.calls = change, 0

    def score(self, prompts, responses, **columns):
        self.calls += 1
        score = torch.tensor([float(len(text)) for text in responses])
        toxicity = torch.full((len(responses),), 0.5)
        parts = {"length": score}
        scores = {"score": score, "toxicity": toxicity, "parts": parts, "scorer_id": "broken"}
        return Scores(**(scores | self.change(self.calls, **scores)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda call, score, toxicity, **_: {
                "score": score[1:],
                "toxicity": toxicity[1:],
                "parts": {},
            },
            "score has the shape (4,), want (5,)",
        ),
        (lambda call, score, **_: {"score": score / 0}, "score is not finite"),
        (lambda call, toxicity, **_: {"toxicity": toxicity / 0}, "toxicity is not finite"),
        (lambda call, toxicity, **_: {"toxicity": toxicity + 1}, "toxicity is not in [0, 1]"),
        (lambda call, toxicity, **_: {"toxicity": -toxicity}, "toxicity is not in [0, 1]"),
        (lambda call, **_: {"scorer_id": "other"}, "its scores name another scorer: 'other'"),
        (lambda call, **_: {"scorer_id": ""}, "its scores name another scorer: ''"),
        (
            lambda call, score, **_: {"score": score + 0.001 * torch.arange(len(score))},
            "equal responses score differently: score 35 and 35.003",
        ),
        (
            lambda call, score, **_: {"score": score + 0.001 * (call == 3)},
            "the order is not kept: score 35 and 35.001",
        ),
        (
            lambda call, toxicity, **_: {"toxicity": toxicity + 0.001 * (call == 4)},
            "the batch changes the score: toxicity 0.5 and 0.501",
        ),
    ],
)
def test_the_contract_names_the_rule_that_is_broken(change, message):
    with pytest.raises(ScorerError) as error:
        check_scorer(OneRuleBroken(change))
    assert str(error.value).startswith(f"the scorer 'broken' breaks the contract: {message}")


def test_the_contract_allows_what_is_lost_to_rounding():
    check_scorer(OneRuleBroken(lambda call, score, **_: {"score": score + 5e-5 * (call % 2)}))
    shaky = OneRuleBroken(lambda call, score, **_: {"score": score + 0.01 * (call % 2)})
    check_scorer(shaky, tolerance=0.02)


def test_a_signed_scorer_says_its_factors(word_scorer):
    scorer = SignedScorer(word_scorer(), {"good": 1.0, "bad": -0.5})
    assert scorer.scorer_id == "words@1 times (good 1, bad -0.5)"
