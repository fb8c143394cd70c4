"""Settings -> reward and judge, each checked, loaded and probed, and the encoder beside them."""

from dataclasses import asdict

import torch

from lora_detox.scores import (
    ClassifierScorer,
    CompositeScorer,
    Encoder,
    EnsembleScorer,
    FunctionScorer,
    ScoreTerm,
    SignedScorer,
    check_classifier,
    check_encoder,
    check_padding,
    probe_scorer,
    text_term,
    warn_of_batch_effects,
)
from lora_detox.settings import ScorerSettings, Settings, TermSettings, probe_texts
from lora_detox.types import Scorer


def check_scorers(settings: Settings) -> None:
    """Find out from configurations alone whether reward, judge and encoder can be read."""
    for key, scorer in (("reward", settings.reward), ("judge", settings.judge)):
        if scorer.path is not None:
            check_classifier(scorer.path, scorer.label, key, scorer.revision)
            for path in scorer.ensemble:
                check_classifier(path, None, key)
    if settings.evaluation.encoder is not None:
        check_encoder(settings.evaluation.encoder, settings.evaluation.encoder_revision)


def load_encoder(settings: Settings, device: torch.device) -> Encoder | None:
    """The encoder that measures relevance to the prompt; None where none is named."""
    path, revision = settings.evaluation.encoder, settings.evaluation.encoder_revision
    return None if path is None else Encoder(check_encoder(path, revision), device)


def load_scorers(settings: Settings, device: torch.device) -> tuple[Scorer, Scorer | None]:
    """Reward and judge, each probed with plain insults and courtesies."""
    judge = _load_scorer(settings.judge, "judge", device, None)
    reward = _load_scorer(settings.reward, "reward", device, judge)
    if reward is None:
        raise ValueError("a reward needs a classifier or a function")  # settings checked it
    return reward, judge


def _load_scorer(
    settings: ScorerSettings, key: str, device: torch.device, companion: Scorer | None
) -> Scorer | None:
    scorer: Scorer | None = companion
    if settings.path is not None:
        scorer = ClassifierScorer(
            settings.path,
            label=settings.label,
            output=settings.output.value,
            text=settings.text.value,
            dtype=settings.dtype.value,
            batch_size=settings.batch_size,
            max_tokens=settings.max_tokens,
            revision=settings.revision,
            device=device,
            key=key,
        )
        check_padding(scorer, key)
    if settings.ensemble and scorer is not None:
        others = [_ensemble_member(path, settings, key, device) for path in settings.ensemble]
        scorer = EnsembleScorer([scorer, *others], settings.combine.value)
    if settings.function is not None and scorer is not None:
        scorer = FunctionScorer(settings.function, scorer, key=key)
    if settings.terms != TermSettings() and scorer is not None:
        scorer = _composite(scorer, settings)
    if settings.path is None and settings.function is None:
        return None
    if settings.probe and scorer is not None:
        texts = probe_texts(settings.probe_texts, f"{key}.probe_texts")
        probe_scorer(scorer, key, texts)
        if settings.function is not None:
            warn_of_batch_effects(scorer, key)
    return SignedScorer(scorer, settings.signs) if settings.signs and scorer else scorer


def _ensemble_member(
    path: str, settings: ScorerSettings, key: str, device: torch.device
) -> ClassifierScorer:
    scorer = ClassifierScorer(
        path,
        output=settings.output.value,
        text=settings.text.value,
        dtype=settings.dtype.value,
        batch_size=settings.batch_size,
        max_tokens=settings.max_tokens,
        device=device,
        key=key,
    )
    check_padding(scorer, key, f"{key}.ensemble")
    return scorer


def _composite(scorer: Scorer, settings: ScorerSettings) -> CompositeScorer:
    """Weighted terms; toxicity is always that of the classifier, whatever its weight."""
    weights = {n: w for n, w in asdict(settings.terms).items() if w or n == "toxicity"}
    return CompositeScorer(
        {
            name: ScoreTerm(
                scorer=scorer if name == "toxicity" else text_term(name, settings.length_words),
                weight=weight,
            )
            for name, weight in weights.items()
        },
        toxicity_from="toxicity",
    )
