"""Credit by prefixes: who changed the score is rewarded, and no response earns more in all."""

import torch

from lora_detox.scores import prefix_credit
from lora_detox.types import PromptBatch, Scores

WORDS = {1: "fine", 2: "awful", 3: "."}
IDS = torch.tensor([[1, 2, 1, 1, 3], [1, 1, 3, 0, 0], [1, 0, 0, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.bool)


class CountsInsults:
    """-1 for each "awful"; remembers what it scored."""

    scorer_id = "counts"

    def __init__(self):
        self.scored = []

    def score(self, prompts, responses, **columns):
        self.scored += list(zip(prompts, responses, strict=True))
        score = torch.tensor([-float(text.count("awful")) for text in responses])
        return Scores(score=score, toxicity=-score, parts={}, scorer_id="counts")


def decode(ids, mask):
    return [" ".join(WORDS[int(i)] for i in row[kept]) for row, kept in zip(ids, mask, strict=True)]


def credit_every(every):
    scorer = CountsInsults()
    prompts = PromptBatch(
        texts=["a", "b", "c"],
        query_ids=torch.zeros(3, 1, dtype=torch.long),
        query_mask=torch.ones(3, 1, dtype=torch.bool),
        references=[[], [], []],
        row_ids=["0", "1", "2"],
    )
    scores = scorer.score(prompts.texts, decode(IDS, MASK))
    scorer.scored.clear()
    return prefix_credit(scorer, prompts, (IDS, MASK), scores.score, decode, every), scorer


def test_the_insult_is_charged_where_it_stands_and_given_back_at_the_end():
    credit, scorer = credit_every(1)
    start = -1 / 3  # mean score of the three
    expected = torch.tensor(
        [
            [-start, -1.0, 0.0, 0.0, 1.0 + start],
            [-start, 0.0, start, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 0.0],
        ]
    )
    torch.testing.assert_close(credit, expected)
    assert ("a", "fine awful") in scorer.scored
    assert not [text for prompt, text in scorer.scored if prompt == "c"]  # nothing before its end


def test_stretches_of_several_tokens_and_sums_of_zero():
    credit, scorer = credit_every(2)
    assert {text for prompt, text in scorer.scored if prompt == "a"} == {
        "fine awful",
        "fine awful fine fine",
    }
    torch.testing.assert_close(credit[0, 1], torch.tensor(-2 / 3))
    assert credit[0, 3] == 0.0
    torch.testing.assert_close(credit.sum(dim=1), torch.zeros(3))
    assert not credit[~MASK].any()


def test_stretches_longer_than_every_response_change_nothing():
    credit, scorer = credit_every(8)
    assert not credit.any()
    assert not scorer.scored


def test_the_scorer_gets_the_columns_of_each_row_and_the_correction_its_texts():
    class Remembers(CountsInsults):
        def score(self, prompts, responses, **columns):
            self.columns = columns
            return super().score(prompts, responses)

    def half(score, texts):
        assert len(texts) == len(score)
        assert "fine awful" in texts
        return score / 2

    scorer = Remembers()
    prompts = PromptBatch(
        texts=["a", "b", "c"],
        query_ids=torch.zeros(3, 1, dtype=torch.long),
        query_mask=torch.ones(3, 1, dtype=torch.bool),
        references=[["x"], ["y"], ["z"]],
        row_ids=["0", "1", "2"],
    )
    credit = prefix_credit(
        scorer, prompts, (IDS, MASK), torch.tensor([-0.5, 0.0, 0.0]), decode, 2, half
    )
    assert scorer.columns == {
        "references": [["x"], ["y"], ["x"]],
        "row_ids": ["0", "1", "0"],
        "sources": ["a", "b", "a"],  # no template is known: the prompts themselves
    }
    torch.testing.assert_close(credit[0, 1], torch.tensor(-0.5 + 0.5 / 3))
