"""Finding a classifier or encoder and checking it by its config.json, before weights are read."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from lora_detox.embedded import embedded_path
from lora_detox.errors import ScorerError
from lora_detox.fitting import is_out_of_memory
from lora_detox.hub import HubError, hub_files
from lora_detox.hub_ids import is_hub_id
from lora_detox.machine import DTYPES, scorer_dtype
from lora_detox.model_files import (
    NO_CODE,
    forget_code,
    not_finite,
    wants_code,
    weight_fault,
    weight_files,
)
from lora_detox.scores.heads import (
    ClassifierHead,
    civil_label_index,
    is_sigmoid_head,
    toxic_label_indices,
)
from lora_detox.special_tokens import choose_padding, embedding_rows, is_inside, tokens_around

EMBEDDED_PREFIX = "embedded:"


@dataclass(frozen=True, kw_only=True)
class ModelKeys:
    """How messages speak of a model, and which settings name it.

    Attributes:
        kind: what it is called.
        wanted: what it has to be, with the article.
        path: setting of its folder or hub id.
        revision: setting of its revision.
        advice: how to do without the hub.
    """

    kind: str
    wanted: str
    path: str
    revision: str
    advice: str


def classifier_keys(key: str) -> ModelKeys:
    """The words for the classifier of a settings group ("reward", "judge", "reward.fluency")."""
    group, _, term = key.partition(".")
    without = (
        f"or to do without: `{group}.terms.{term}=0`" if term else f"or the built-in: `{key}=mini`"
    )
    return ModelKeys(
        kind="classifier",
        wanted="a sequence classifier",
        path=f"{key}.path",
        revision=f"{key}.revision",
        advice=f"to read a local folder: `{key}.path=FOLDER`, {without}",
    )


def check_classifier(
    path: str, label: str | int | None = None, key: str = "reward", revision: str | None = None
) -> ClassifierHead:
    """Find a classifier and decide which output is civil, from its config.json only.

    Args:
        path: `embedded:reward`, `embedded:judge`, a local folder, or a hub id.
        label: the civil label (of a multi-label head: the toxic one) by name or index, or None.
        key: settings group of the scorer ("reward" or "judge"), for messages.
        revision: branch, tag or commit on the hub.

    Returns:
        The resolved path with the labels and the index of the civil one.

    Raises:
        ScorerError: if it is missing, unreachable, no sequence classifier, or its labels are
            unclear.
    """
    place = resolve_classifier(path, key, revision)
    config = read_model_config(path, place, revision, classifier_keys(key))
    architectures = config.architectures or []
    if architectures and not any("SequenceClassification" in name for name in architectures):
        raise ScorerError(
            f"{path} is a {', '.join(architectures)}, want a sequence classifier; "
            f"change `{key}.path`"
        )
    id2label = {int(index): str(name) for index, name in config.id2label.items()}
    if is_sigmoid_head(id2label, config.problem_type):
        toxic = toxic_label_indices(id2label, label, key=key)
        return ClassifierHead(path=place, id2label=id2label, civil_index=None, toxic_indices=toxic)
    civil = civil_label_index(id2label, label, key=key)
    return ClassifierHead(path=place, id2label=id2label, civil_index=civil)


def resolve_classifier(path: str, key: str, revision: str | None) -> str:
    """`resolve_model` for the classifier of a settings group."""
    return resolve_model(path, revision, classifier_keys(key))


def resolve_model(path: str, revision: str | None, keys: ModelKeys) -> str:
    """Folder of an embedded or local model, or the hub id if the hub can be reached.

    Args:
        path: `embedded:NAME`, a local folder, or a hub id.
        revision: branch, tag or commit on the hub.
        keys: for messages.

    Returns:
        What `from_pretrained` reads.

    Raises:
        ScorerError: if there is nothing behind the path.
    """
    if path.startswith(EMBEDDED_PREFIX):
        try:
            place = embedded_path(path.removeprefix(EMBEDDED_PREFIX))
        except ValueError as error:
            raise ScorerError(f"`{path}`: {error}; change `{keys.path}`") from error
    else:
        place = Path(path).expanduser()
    if place.is_dir():
        if not (place / "config.json").exists():
            raise ScorerError(
                f"the folder {place} has no config.json, want a saved {keys.kind}; "
                f"change `{keys.path}`"
            )
        return str(place)
    if path.startswith(EMBEDDED_PREFIX) or not is_hub_id(path):
        raise ScorerError(
            f"no such folder: {place}; want a saved {keys.kind} or a hub id owner/name; "
            f"change `{keys.path}`"
        )
    _check_hub(path, revision, keys)
    return path


def resolve_dtype(dtype: str, device: torch.device, key: str) -> torch.dtype:
    """Number format of the weights.

    Args:
        dtype: "float32", "bfloat16", "float16" or "auto".
        device: where the classifier runs.
        key: settings group of the scorer, for messages.

    Returns:
        For "auto" float32 on a CPU, on a GPU bfloat16 where it has it, else float16.

    Raises:
        ScorerError: for any other name.
    """
    if dtype == "auto":
        return scorer_dtype(device)
    if dtype not in DTYPES:
        raise ScorerError(
            f"the dtype `{dtype}` is unknown, want auto, {', '.join(DTYPES)}; change `{key}.dtype`"
        )
    return DTYPES[dtype]


def load_classifier(
    place: str, *, device: torch.device, dtype: torch.dtype, revision: str | None, key: str
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load weights and tokenizer of a classifier that `check_classifier` found.

    Args:
        place: resolved folder or hub id.
        device: where it runs.
        dtype: number format of the weights.
        revision: branch, tag or commit on the hub.
        key: settings group of the scorer, for messages.

    Returns:
        The model in evaluation mode, without gradients, and its tokenizer.

    Raises:
        ScorerError: if it cannot be loaded, or its weights lack the classification head.
    """
    shared: dict[str, Any] = {
        "revision": revision,
        **NO_CODE,
        "local_files_only": Path(place).is_dir(),
    }
    check_weight_files(place, revision, classifier_keys(key))
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **shared)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            place, use_safetensors=True, dtype=dtype, output_loading_info=True, **shared
        )
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise load_error(place, key, error) from error
    lacking = sorted(info["missing_keys"]) + sorted(str(one) for one in info["mismatched_keys"])
    if lacking:  # transformers would fill them with random numbers and only warn
        raise ScorerError(
            f"the weights of {place} lack {', '.join(lacking[:4])}: want a trained sequence "
            f"classifier; change `{key}.path`"
        )
    check_finite(model, place, classifier_keys(key))
    check_special_tokens(model, tokenizer, classifier_keys(key))
    agree_on_padding(model, tokenizer)
    return model.to(device).eval().requires_grad_(False), tokenizer


def check_special_tokens(model: Any, tokenizer: PreTrainedTokenizerBase, keys: ModelKeys) -> None:
    """Refuse a model without a row in its embedding for the tokens around every text."""
    rows = embedding_rows(model.config)
    before, after = tokens_around(tokenizer)
    for token_id in (*before, *after):
        if not is_inside(token_id, rows):
            token = tokenizer.convert_ids_to_tokens(token_id)
            raise ScorerError(
                f"the tokenizer puts {token!r}, id {token_id}, around every text, but the model's "
                f"embedding has {rows} rows; want {keys.wanted} that was resized to its tokenizer; "
                f"change `{keys.path}`"
            )


def agree_on_padding(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """One padding id for both, inside the embedding.

    Decoder-only classifiers read the last token before padding, so they must know its id; it is not
    one that the tokenizer puts behind every text, where there is another.

    Args:
        model: a classifier, whose configuration may be changed.
        tokenizer: its tokenizer, whose padding token may be changed.
    """
    rows, config = embedding_rows(model.config), model.config
    if tokenizer.pad_token_id is None and is_inside(tokenizer.eos_token_id, rows):
        tokenizer.pad_token = tokenizer.eos_token
    _, after = tokens_around(tokenizer)
    others = [config.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]
    free = [one for one in others if one not in after]
    choose_padding(tokenizer, rows, [*free, *others, 0])
    if not is_inside(config.pad_token_id, rows):
        config.pad_token_id = tokenizer.pad_token_id
    elif config.pad_token_id != tokenizer.pad_token_id:  # the model looks for its own
        token = tokenizer.convert_ids_to_tokens(config.pad_token_id)
        if token is not None:
            tokenizer.pad_token = token


def identify(path: str, place: str, model: Any, revision: str | None) -> str:
    """Name of a classifier for reports, pinned by revision or by a hash of its weights.

    Args:
        path: as the settings have it.
        place: resolved folder or hub id.
        model: the loaded model.
        revision: as the settings have it, or None.

    Returns:
        "name@revision"; for folders "folder@hash of the weight files".
    """
    if not Path(place).is_dir():
        commit = getattr(model.config, "_commit_hash", None)
        return f"{path}@{commit or revision or 'main'}"
    digest = hashlib.sha256()
    for file in sorted(Path(place).glob("*.safetensors")):
        with file.open("rb") as weights:
            digest.update(hashlib.file_digest(weights, "sha256").digest())
    name = path if path.startswith(EMBEDDED_PREFIX) else Path(place).resolve().name
    return f"{name}@{digest.hexdigest()[:12]}"


def read_model_config(path: str, place: str, revision: str | None, keys: ModelKeys) -> Any:
    """The configuration of a classifier or encoder, without its weights.

    Args:
        path: as settings have it, for messages.
        place: where it was found.
        revision: branch, tag or commit on the hub.
        keys: settings that name it.

    Returns:
        The configuration.

    Raises:
        ScorerError: it cannot be read.
    """
    try:
        config: Any = AutoConfig.from_pretrained(
            place,
            revision=revision,
            local_files_only=Path(place).is_dir(),
            **NO_CODE,
        )
    except Exception as error:
        raise model_load_error(path, keys, error) from error
    forget_code(config)
    return config


def check_weight_files(place: str, revision: str | None, keys: ModelKeys) -> None:
    """Refuse a pickle or a cut file under the name of safetensors, naming it."""
    if fault := weight_fault(weight_files(place, revision)):
        raise ScorerError(
            f"{fault}; want {keys.wanted} as save_pretrained wrote it; change `{keys.path}`"
        )


def check_finite(model: Any, place: str, keys: ModelKeys) -> None:
    """Refuse a model with weights that are no numbers, naming the first."""
    if fault := not_finite(model.named_parameters()):
        raise ScorerError(
            f"the weights of the {keys.kind} {place}: {fault}; want another file of it; "
            f"change `{keys.path}`"
        )


def load_error(path: str, key: str, error: Exception) -> ScorerError:
    """`model_load_error` for the classifier of a settings group."""
    return model_load_error(path, classifier_keys(key), error)


def model_load_error(path: str, keys: ModelKeys, error: Exception) -> ScorerError:
    """What loading raised, as one ScorerError that says what to do."""
    lines = str(error).strip().splitlines() or [""]
    if wants_code(error):
        return ScorerError(
            f"the {keys.kind} {path} needs Python files of its own folder (auto_map in its "
            "config.json or tokenizer_config.json), and no code of a model folder is run; want "
            f"{keys.wanted} that Transformers knows; change `{keys.path}`"
        )
    if "safetensors" in str(error):
        return ScorerError(
            f"the {keys.kind} {path} has no safetensors weights, and pickled ones are not loaded "
            f"({lines[0]}); want a converted copy or another {keys.kind}; change `{keys.path}` or "
            f"`{keys.revision}`"
        )
    return ScorerError(
        f"cannot load the {keys.kind} {path}: {type(error).__name__}: {lines[0]}; "
        f"want {keys.wanted} with safetensors weights; {keys.advice}"
    )


def _check_hub(path: str, revision: str | None, keys: ModelKeys) -> None:
    """The hub has it; offline `from_pretrained` looks into the cache and fails at once."""
    try:
        hub_files(path, revision)
    except HubError as error:
        if error.answered:  # missing, gated, private
            raise ScorerError(
                f"cannot load the {keys.kind} {path}: {error}; change `{keys.path}` or "
                f"`{keys.revision}`, or {keys.advice}"
            ) from error
        raise ScorerError(
            f"no local folder {path}, and the Hugging Face hub cannot be reached for it "
            f"({error}); {keys.advice}; or set HF_HUB_OFFLINE=1 to use what the cache holds"
        ) from error
