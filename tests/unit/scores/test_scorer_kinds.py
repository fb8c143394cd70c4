"""Python functions, sums, the probe and the contract check."""

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


def rows(texts, references=None):
    return PromptBatch(
        texts=texts,
        query_ids=torch.ones(len(texts), 1, dtype=torch.long),
        query_mask=torch.ones(len(texts), 1, dtype=torch.bool),
        references=references or [[] for _ in texts],
        row_ids=[str(place) for place, _ in enumerate(texts)],
    )
