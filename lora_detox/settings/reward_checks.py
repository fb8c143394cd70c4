"""Terms of reward and judge that cannot work together."""

import math
from dataclasses import asdict

from lora_detox.choices import TermsCombine
from lora_detox.errors import SettingsError
from lora_detox.settings.groups import FluencySettings, ScorerSettings, Settings, TermSettings


def check_reward_terms(settings: Settings) -> None:
    """Find weights and combinations of terms that cannot work.

    Args:
        settings: as composed.

    Raises:
        SettingsError: with what was got, what is wanted and the key to change.
    """
    for key, scorer in (("reward", settings.reward), ("judge", settings.judge)):
        weights = asdict(scorer.terms)
        for name, weight in weights.items():
            if not math.isfinite(weight):
                raise SettingsError(f"{key}.terms.{name}: got {weight}, want a finite number")
        product = scorer.terms_combine is TermsCombine.product
        composite = scorer.terms != TermSettings() or product
        if key == "judge":
            _check_judge(scorer, composite=composite)
        if not any(weights.values()):
            raise SettingsError(f"{key}.terms: every weight is 0; want one that is not")
        if (composite or scorer.ensemble) and scorer.path is None:
            raise SettingsError(
                f"{key}.path: got null; {key}.terms and {key}.ensemble want a classifier there"
            )
        if product:
            _check_product(scorer)
        _check_models(key, scorer)


def _check_judge(judge: ScorerSettings, *, composite: bool) -> None:
    if composite:
        raise SettingsError(
            "judge.terms: a judge measures toxicity alone; want toxicity 1 and the others 0, and "
            "judge.terms_combine=sum"
        )
    for name, value in (("encoder", judge.encoder), ("fluency.path", judge.fluency.path)):
        if value is not None:
            raise SettingsError(
                f"judge.{name}: got {value}; a judge measures toxicity alone, want null"
            )


def _check_product(reward: ScorerSettings) -> None:
    weights = asdict(reward.terms)
    for name, weight in weights.items():
        if weight < 0:
            raise SettingsError(
                f"reward.terms.{name}: got {weight:g}; reward.terms_combine=product takes weights "
                "as exponents, so want 0 or more"
            )
    if reward.terms.length:
        raise SettingsError(
            f"reward.terms.length: got {reward.terms.length:g}, but its numbers are 0 and below; "
            "reward.terms_combine=product multiplies numbers from 0 to 1, so want 0 there"
        )
    if reward.function is not None:
        raise SettingsError(
            f"reward.function: got {reward.function}; reward.terms_combine=product multiplies "
            "numbers from 0 to 1, which a function need not give; want null, or "
            "reward.terms_combine=sum"
        )


def _check_models(key: str, scorer: ScorerSettings) -> None:
    """Models of terms are named where their term counts, and only there."""
    terms, fluency = scorer.terms, scorer.fluency
    if scorer.encoder is not None and not terms.similarity:
        raise SettingsError(
            f"{key}.encoder: got {scorer.encoder}, which no term reads; want "
            f"{key}.terms.similarity=1, or null"
        )
    if scorer.encoder is None and scorer.encoder_revision is not None:
        raise SettingsError(f"{key}.encoder_revision: {key}.encoder is null; want null here too")
    if terms.fluency and fluency.path is None:
        raise SettingsError(
            f"{key}.fluency.path: got null; {key}.terms.fluency={terms.fluency:g} wants a "
            "classifier of fluent text there, a folder or hub id (stage=reward_model trains one)"
        )
    if not terms.fluency and fluency != FluencySettings():
        advice = "the defaults of conf/judge there"
        if key == "reward":
            advice = "reward.terms.fluency=1, or reward.fluency.path=null"
        raise SettingsError(f"{key}.fluency: its classifier is read by no term; want {advice}")
