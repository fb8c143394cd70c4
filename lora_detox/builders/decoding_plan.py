"""What a decoding reads and checks before weights load."""

from transformers import PretrainedConfig

from lora_detox.builders.decoding import DecodingPlan, upper_layers
from lora_detox.builders.toxic_examples import ToxicExamples, read_examples
from lora_detox.builders.word_files import words_of
from lora_detox.choices import DecodingKind
from lora_detox.decoding.fighting_words import fighting_words
from lora_detox.decoding.projection import mlp_output
from lora_detox.errors import DataError, SettingsError
from lora_detox.policy.adapter import empty_model
from lora_detox.policy.adapter_kinds import changes_base, kind_of
from lora_detox.policy.anatomy import decoder_layers, state_size
from lora_detox.policy.preflight import BackbonePlan, check_adapter
from lora_detox.policy.stored_adapter import read_stored
from lora_detox.settings import DecodingSettings, Settings

_KEY = "decoding"


def plan_decoding(
    decoding: DecodingSettings, settings: Settings, backbone: BackbonePlan, config: PretrainedConfig
) -> DecodingPlan:
    """Read and check what a decoding needs, before weights load.

    Args:
        decoding: of one model, checked.
        settings: composed and checked.
        backbone: where the model is.
        config: of the model.

    Returns:
        The plan.

    Raises:
        DataError: a file of words or examples that cannot be used.
        SettingsError: an adapter that does not fit, or a model without the parts that are changed.
    """
    kind, task = decoding.name, settings.task
    if kind is not DecodingKind.plain and backbone.adapter and settings.evaluation.strengths:
        raise SettingsError(
            f"evaluation.strengths: {backbone.adapter} is decoded by {kind.value}, whose words, "
            "directions and adapters are those of one strength; want that model with plain "
            "decoding, or a call of its own without strengths"
        )
    if kind is DecodingKind.bad_words:
        examples, words = _words(decoding)
        return DecodingPlan(settings=decoding, task=task, words=words, examples=examples)
    if kind is DecodingKind.anti_expert:
        _check_anti_expert(str(decoding.adapter), backbone, config)
    if kind not in (DecodingKind.direction, DecodingKind.projection):
        return DecodingPlan(settings=decoding, task=task)
    _check_layers(decoding, config)
    examples = read_examples(decoding.examples, decoding.fields, _KEY).sample(decoding.count)
    pairs = min(len(examples.toxic), len(examples.civil))
    most = min(pairs, state_size(config) - 1)
    if kind is DecodingKind.projection and decoding.rank > most:
        raise SettingsError(
            f"{_KEY}.rank: got {decoding.rank}, want at most {most}: there are {pairs} pairs of "
            f"texts, and states of {state_size(config)} numbers"
        )
    return DecodingPlan(settings=decoding, task=task, examples=examples)


def _words(decoding: DecodingSettings) -> tuple[ToxicExamples | None, list[str]]:
    """Banned words, with the texts that they are from where no file names them."""
    if decoding.words is not None:
        return None, words_of(decoding.words, f"{_KEY}.words")
    examples = read_examples(decoding.examples, decoding.fields, _KEY)
    toxic, civil = examples.toxic, examples.civil
    words = fighting_words(toxic, civil, decoding.size, least_ratio=decoding.ratio)
    if not words:
        raise DataError(
            f"no word is {decoding.ratio:g} times as frequent in the {len(toxic)} toxic texts of "
            f"{decoding.examples} as in the {len(civil)} civil ones; lower `{_KEY}.ratio`, change "
            f"`{_KEY}.examples`, or name a file with `{_KEY}.words`"
        )
    return examples, words


def _check_anti_expert(path: str, backbone: BackbonePlan, config: PretrainedConfig) -> None:
    """The adapter is a LoRA that fits the base and leaves the base as it is."""
    try:
        toxic = check_adapter(backbone, path, config)
    except SettingsError as error:
        message = str(error).replace("policy.adapter", f"{_KEY}.adapter")
        raise SettingsError(message) from error
    own = None if backbone.adapter is None else read_stored(backbone.adapter)
    for what, stored in ((path, toxic), (backbone.adapter, own)):
        if stored is None:
            continue
        if kind_of(stored) != "LORA" or getattr(stored, "modules_to_save", None):
            raise SettingsError(
                f"{_KEY}.adapter: {what} is {kind_of(stored)}, or trains whole modules; an "
                "anti-expert is exchanged with the model's own adapter at each token, which wants "
                "LoRA on both sides"
            )
        if changes_base(stored):
            raise SettingsError(
                f"{_KEY}.adapter: {what} takes its start out of the base (init_lora_weights="
                f"{stored.init_lora_weights}), which the other side needs as it is"
            )


def _check_layers(decoding: DecodingSettings, config: PretrainedConfig) -> None:
    """The model keeps its layers, and for projection its MLPs, where they can be found."""
    try:
        layers = decoder_layers(empty_model(config))
        if decoding.name is DecodingKind.projection:
            for layer in layers[-upper_layers(len(layers), decoding) :]:
                mlp_output(layer)
    except ValueError as error:
        raise SettingsError(
            f"{_KEY}={decoding.name.value}: cannot be done on this {config.model_type} model "
            f"({error}); want another decoding"
        ) from error
