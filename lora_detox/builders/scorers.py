"""Settings -> reward and judge, each checked, loaded and probed, and the encoder beside them."""

from dataclasses import asdict
from pathlib import Path

import torch

from lora_detox.builders.word_files import words_of
from lora_detox.choices import TermsCombine
from lora_detox.embedded.mild_words import MILD_WORDS
from lora_detox.scores import (
    REWARD_KEYS,
    ClassifierScorer,
    CompositeScorer,
    Encoder,
    EnsembleScorer,
    FluencyScorer,
    FunctionScorer,
    ProductScorer,
    ScoreTerm,
    SignedScorer,
    SimilarityScorer,
    WordListScorer,
    check_classifier,
    check_encoder,
    check_fluency,
    check_padding,
    probe_fluency,
    probe_scorer,
    text_term,
    warn_of_batch_effects,
)
from lora_detox.scores.probe import CIVIL_SENTENCES
from lora_detox.settings import ScorerSettings, Settings, TermSettings, probe_texts
from lora_detox.types import Scorer

FLUENCY_KEY = "reward.fluency"


def check_scorers(settings: Settings) -> None:
    """Find out from files and configurations alone whether all scorers can be read."""
    load_word_list(settings)
    for key, scorer in (("reward", settings.reward), ("judge", settings.judge)):
        if scorer.path is not None:
            check_classifier(scorer.path, scorer.label, key, scorer.revision)
            for path in scorer.ensemble:
                check_classifier(path, None, key)
    reward, fluency = settings.reward, settings.reward.fluency
    if reward.encoder is not None:
        check_encoder(reward.encoder, reward.encoder_revision, REWARD_KEYS)
    if fluency.path is not None:
        check_fluency(fluency.path, fluency.label, FLUENCY_KEY, fluency.revision)
    if settings.evaluation.encoder is not None:
        check_encoder(settings.evaluation.encoder, settings.evaluation.encoder_revision)


def load_encoder(settings: Settings, device: torch.device) -> Encoder | None:
    """The encoder that measures relevance to the prompt; None where none is named."""
    path, revision = settings.evaluation.encoder, settings.evaluation.encoder_revision
    return None if path is None else Encoder(check_encoder(path, revision), device)


MILD = "embedded:mild"


def load_word_list(settings: Settings) -> WordListScorer | None:
    """The word list of `evaluation.word_list`, a scorer of another kind than the classifiers.

    Args:
        settings: composed and checked.

    Returns:
        The scorer; None where no list is named.

    Raises:
        DataError: the file cannot be read, or has no word.
    """
    path, key = settings.evaluation.word_list, "evaluation.word_list"
    if path is None:
        return None
    if path == MILD:
        return WordListScorer(MILD_WORDS, MILD)
    return WordListScorer(words_of(path, key), Path(path).name, key)


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
        scorer = FunctionScorer(settings.function, scorer, key=key, timeout=settings.timeout)
    product = settings.terms_combine is TermsCombine.product
    if settings.terms != TermSettings() and not product and scorer is not None:
        terms = _terms(settings, device) | {"toxicity": scorer}
        scorer = CompositeScorer(_weighted(terms, settings), toxicity_from="toxicity")
    if settings.path is None and settings.function is None:
        return None
    if settings.probe and scorer is not None:
        texts = probe_texts(settings.probe_texts, f"{key}.probe_texts")
        probe_scorer(scorer, key, texts)
        if settings.function is not None:
            warn_of_batch_effects(scorer, key)
    if product and scorer is not None:  # the probe's sentences have no prompt to be similar to
        style = ScoreTerm(scorer=scorer, weight=settings.terms.toxicity)
        scorer = ProductScorer(style, _weighted(_terms(settings, device), settings), key=key)
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


def _weighted(scorers: dict[str, Scorer], settings: ScorerSettings) -> dict[str, ScoreTerm]:
    """Scorers with the weights of their terms, in the order of `reward.terms`."""
    weights = asdict(settings.terms)
    return {
        name: ScoreTerm(scorer=scorers[name], weight=weight)
        for name, weight in weights.items()
        if name in scorers
    }


def _terms(settings: ScorerSettings, device: torch.device) -> dict[str, Scorer]:
    """The terms beside toxicity that count; toxicity itself is that of the classifier."""
    return {
        name: _term(name, settings, device)
        for name, weight in asdict(settings.terms).items()
        if weight and name != "toxicity"
    }


def _term(name: str, settings: ScorerSettings, device: torch.device) -> Scorer:
    if name == "similarity" and settings.encoder is not None:
        plan = check_encoder(settings.encoder, settings.encoder_revision, REWARD_KEYS)
        return SimilarityScorer(Encoder(plan, device))
    if name == "fluency":
        return _fluency(settings, device)
    return text_term(name, settings.length_words)


def _fluency(settings: ScorerSettings, device: torch.device) -> FluencyScorer:
    """The classifier of fluent text, checked on sentences of the probe."""
    fluency = settings.fluency
    if fluency.path is None:
        raise ValueError("the term fluency needs a classifier")  # settings checked it
    classifier = ClassifierScorer(
        fluency.path,
        label=fluency.label,
        output="softmax",
        batch_size=settings.batch_size,
        max_tokens=fluency.max_tokens,
        revision=fluency.revision,
        device=device,
        key=FLUENCY_KEY,
    )
    check_padding(classifier, "reward", f"{FLUENCY_KEY}.path")
    scorer = FluencyScorer(classifier)
    if settings.probe:
        texts = probe_texts(settings.probe_texts, "reward.probe_texts")
        probe_fluency(scorer, FLUENCY_KEY, texts[0] if texts else CIVIL_SENTENCES)
    return scorer
