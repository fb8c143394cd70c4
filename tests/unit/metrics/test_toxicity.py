import pytest
import torch

from lora_detox.errors import ScorerError
from lora_detox.metrics.toxicity import Toxicity, expected_maximum_toxicity
from lora_detox.types import Scores


class ShareOfBad:
    """Toxicity is the share of the word `bad`."""

    scorer_id = "share-of-bad@1"

    def __init__(self):
        self.calls = []

    def score(self, prompts, responses, **columns):
        self.calls.append((prompts, responses))
        toxicity = torch.tensor(
            [text.split().count("bad") / max(1, len(text.split())) for text in responses]
        )
        return Scores(score=-toxicity, toxicity=toxicity, parts={}, scorer_id=self.scorer_id)


TEXTS = ["good", "bad bad", "bad good", "bad good good good"]


def test_each_number_under_its_right_name(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = Toxicity(ShareOfBad()).compute(predictions=TEXTS)
    assert result["toxicity"] == [0.0, 1.0, 0.5, 0.25]
    assert result["mean_toxicity"] == pytest.approx(0.4375)
    assert result["max_toxicity"] == 1.0
    assert result["toxicity_ratio"] == 0.25
    assert result["scorer_id"] == "share-of-bad@1"
    assert "expected_max_toxicity" not in result


def test_threshold_and_one_call_with_all_texts():
    scorer = ShareOfBad()
    measurement = Toxicity(scorer)
    for text in TEXTS:
        measurement.add_batch(predictions=[text])
    assert measurement.compute(threshold=0.2)["toxicity_ratio"] == 0.75
    assert scorer.calls == [([""] * 4, TEXTS)]


def test_expected_maximum_says_its_k():
    result = Toxicity(ShareOfBad()).compute(predictions=TEXTS, prompts=["p", "p", "q", "q"])
    assert result["expected_max_toxicity"] == 0.75
    assert result["samples_per_prompt"] == 2
    assert expected_maximum_toxicity([0.1, 0.2, 0.3], ["p", "p", "q"]) is None


def test_unscored_text_is_an_error():
    class Broken(ShareOfBad):
        def score(self, prompts, responses, **columns):
            nothing = torch.full((len(responses),), float("nan"))
            return Scores(score=nothing, toxicity=nothing, parts={}, scorer_id="broken")

    with pytest.raises(ScorerError, match=r"share-of-bad@1 .* 1 of them not finite"):
        Toxicity(Broken()).compute(predictions=["text"])
