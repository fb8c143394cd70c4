"""Terms of a reward: what cannot work is refused early, and what is named is loaded."""

import pytest
import torch

from lora_detox.api import compose_settings
from lora_detox.builders.scorers import check_scorers, load_scorers
from lora_detox.errors import DetoxError
from lora_detox.memory.predict import Machine, _scorers
from tests.encoders import write_encoder

PRODUCT = "reward.terms_combine=product"
FLUENT = ["reward.terms.fluency=1", "reward.fluency.path=embedded:reward"]
"""The embedded classifier stands in for one of fluency: nothing here depends on what it learned."""


def settings_of(tmp_path, *overrides):
    return compose_settings(["task=flan_summary", "threads=1", *overrides], tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["reward.terms.fluency=1"], r"reward\.fluency\.path: got null.*folder or hub id"),
        (["reward.fluency.path=x/y"], r"reward\.fluency: .*reward\.terms\.fluency=1"),
        (["reward.encoder=x/y"], r"reward\.encoder: got x/y.*reward\.terms\.similarity=1"),
        (["reward.encoder_revision=main"], r"reward\.encoder_revision: reward\.encoder is null"),
        ([PRODUCT, "reward.terms.length=1"], r"reward\.terms\.length: .*from 0 to 1"),
        ([PRODUCT, "reward.terms.rouge=-1"], r"reward\.terms\.rouge: got -1.*0 or more"),
        ([PRODUCT, "reward.function=a.b:c"], r"reward\.function: .*terms_combine=sum"),
        ([PRODUCT, "reward.path=null", "reward.function=a.b:c"], r"reward\.path: got null"),
        ([PRODUCT, "reward.terms.toxicity=0"], r"every weight is 0"),
        (["judge.terms_combine=product"], r"judge\.terms: a judge measures toxicity alone"),
        (["judge.encoder=x/y"], r"judge\.encoder: got x/y; a judge measures toxicity alone"),
        (["judge.fluency.path=x/y"], r"judge\.fluency\.path: got x/y"),
        (["reward.terms.similarity=nan"], r"reward\.terms\.similarity: got nan"),
        (["reward.terms_combine=mean"], r"expected one of \[sum, product\]"),
    ],
)
def test_what_cannot_work_is_refused(overrides, message, tmp_path):
    with pytest.raises(DetoxError, match=message):
        settings_of(tmp_path, *overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["reward.terms.similarity=1", "reward.encoder=./nowhere"], r"`reward\.encoder`"),
        (["reward.terms.similarity=1", "reward.encoder=embedded:t5"], r"`reward\.encoder`"),
        (["reward.terms.fluency=1", "reward.fluency.path=./nowhere"], r"`reward\.fluency\.path`"),
        ([*FLUENT], r"no label `fluent`.*`reward\.fluency\.label`"),
    ],
)
def test_models_are_looked_for_before_weights_load(overrides, message, tmp_path):
    with pytest.raises(DetoxError, match=message):
        check_scorers(settings_of(tmp_path, *overrides))


def test_a_product_of_all_three_is_loaded_and_counted(tmp_path):
    encoder = write_encoder(tmp_path / "encoder")
    settings = settings_of(
        tmp_path,
        PRODUCT,
        "reward.terms.similarity=1",
        f"reward.encoder={encoder}",
        *FLUENT,
        "reward.fluency.label=nothate",
        "reward.probe=false",
    )
    check_scorers(settings)
    reward, _ = load_scorers(settings, torch.device("cpu"))
    scores = reward.score(["Say: the cat"] * 2, ["the cat", ""], sources=["the cat"] * 2)
    assert set(scores.factors) == {"style", "similarity", "fluency"}
    expected = torch.stack(list(scores.factors.values())).prod(dim=0)
    torch.testing.assert_close(scores.score, expected)
    assert scores.score[1] == 0  # nothing said is civil, and neither similar nor fluent
    parts, _, _ = _scorers(settings, 32, Machine(device="cpu", available=1, baseline=1))
    assert {"encoder of the reward model", "fluency model"} <= set(parts)


def test_the_probe_reads_the_classifier_of_a_product(tmp_path):
    """Its sentences answer no prompt, so the product itself would tell nothing."""
    settings = settings_of(tmp_path, PRODUCT, "reward.terms.similarity=1")
    reward, _ = load_scorers(settings, torch.device("cpu"))
    scores = reward.score(["the cat sat"], ["the cat sat"])
    assert scores.factors["similarity"].item() == pytest.approx(1.0)
    turned = settings_of(tmp_path, PRODUCT, "reward.terms.similarity=1", "reward.label=hate")
    with pytest.raises(DetoxError, match="sign"):
        load_scorers(turned, torch.device("cpu"))
