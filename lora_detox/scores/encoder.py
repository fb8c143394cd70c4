"""An encoder that says how near a response is to its prompt (Reimers & Gurevych 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import cached_file

from lora_detox.errors import DetoxError, ScorerError
from lora_detox.fitting import Batches, fitted, is_out_of_memory
from lora_detox.json_text import parse_json
from lora_detox.machine import CPU_BATCH_TOKENS, scorer_dtype
from lora_detox.model_files import NO_CODE
from lora_detox.processes import processes
from lora_detox.progress import advance
from lora_detox.scores.loading import (
    ModelKeys,
    agree_on_padding,
    check_finite,
    check_special_tokens,
    check_weight_files,
    identify,
    model_load_error,
    read_model_config,
    resolve_model,
)
from lora_detox.scores.windows import WindowBatch, Windower, by_length, window_length
from lora_detox.special_tokens import embedding_rows


def encoder_keys(group: str, none: str) -> ModelKeys:
    """The words for the encoder that a settings group names.

    Args:
        group: "evaluation" or "reward".
        none: what `GROUP.encoder=null` does.

    Returns:
        The words.
    """
    key = f"{group}.encoder"
    return ModelKeys(
        kind="encoder",
        wanted="an encoder of texts",
        path=key,
        revision=f"{key}_revision",
        advice=f"to read a local folder: `{key}=FOLDER`, or {none}: `{key}=null`",
    )


KEYS: Final = encoder_keys("evaluation", "to measure none")
REWARD_KEYS: Final = encoder_keys("reward", "to compare words")
_MODES = ("mean", "cls")
_QUIET: dict[str, Any] = {
    "_raise_exceptions_for_missing_entries": False,
    "_raise_exceptions_for_connection_errors": False,
}
_PROBES = ("Yes.", "We met at the station at noon and walked home along the river.")
_TOLERANCE = {torch.float32: 1e-3}
"""Distance of two embeddings of one text that other shapes of the batch may make."""
_HALF_TOLERANCE = 0.05
_KEPT_SETS = 8


@dataclass(frozen=True, kw_only=True)
class EncoderPlan:
    """An encoder that was found, before its weights are read.

    Attributes:
        path: as the settings have it.
        place: resolved folder or hub id.
        revision: branch, tag or commit on the hub.
        pooling: "mean" of the states of all tokens, or that of the first ("cls").
        keys: settings that name it, for messages.
    """

    path: str
    place: str
    revision: str | None
    pooling: str
    keys: ModelKeys = KEYS


def check_encoder(path: str, revision: str | None = None, keys: ModelKeys = KEYS) -> EncoderPlan:
    """Find an encoder, and how its states are pooled, from its configuration only.

    Args:
        path: a local folder or a hub id.
        revision: branch, tag or commit on the hub.
        keys: settings that name it, for messages.

    Returns:
        What `Encoder` loads.

    Raises:
        ScorerError: if it is missing, unreachable, or pools in a way that is not known here.
    """
    place = resolve_model(path, revision, keys)
    config = read_model_config(path, place, revision, keys)
    if config.is_encoder_decoder:
        raise ScorerError(
            f"{path} is an encoder-decoder ({config.model_type}), want an encoder alone, as "
            f"sentence-transformers/all-MiniLM-L6-v2; change `{keys.path}`"
        )
    pooling = _pooling(path, place, revision, keys)
    return EncoderPlan(path=path, place=place, revision=revision, pooling=pooling, keys=keys)


class Encoder:
    """Embeds texts, each alone: pooled last hidden states of L2 norm 1.

    A text is read up to the model's last position. Special tokens count among its tokens.

    Args:
        plan: of `check_encoder`.
        device: where it runs; float32 on a CPU, half on a GPU.
        batch_size: most texts per forward; on a CPU also at most 1,024 tokens (`machine`).

    Raises:
        ScorerError: if it cannot be loaded, or padding changes what it reads.
    """

    def __init__(self, plan: EncoderPlan, device: torch.device, batch_size: int = 64) -> None:
        self._model, tokenizer = _load(plan, device)
        self._keys = plan.keys
        self._cls, self._device, self._batch_size = plan.pooling == "cls", device, batch_size
        self._batches = Batches(
            name=f"the encoder ({plan.keys.path})",
            key="generation.batch_size",
            shorter="generation.response_tokens",
        )
        self._batch_tokens = CPU_BATCH_TOKENS if device.type == "cpu" else None
        length = window_length(self._model, tokenizer, None)
        rows = embedding_rows(self._model.config)
        self._windower = Windower(tokenizer, length, plan.keys.path, rows, path_key=plan.keys.path)
        self._encoder_id = identify(plan.path, plan.place, self._model, plan.revision)
        self._kept: dict[tuple[str, ...], Float[Tensor, "U D"]] = {}
        self._check_padding()

    @property
    def encoder_id(self) -> str:
        """Path with the revision, or with a hash of the weights where there is none."""
        return self._encoder_id

    def relevance(
        self, prompts: Sequence[str], responses: Sequence[str], *, keep_prompts: bool = False
    ) -> Float[Tensor, "B"]:
        """Cosine of each prompt and its response, each embedded alone.

        Args:
            prompts: B prompt texts.
            responses: B response texts.
            keep_prompts: whether the embeddings of these prompts are kept for the next call with
                the same ones.

        Returns:
            Numbers in [-1, 1] on the CPU, high for one topic; 0 where a text is empty.

        Raises:
            ScorerError: if the encoder fails or gives a number that is not finite.
        """
        if len(prompts) != len(responses):
            raise ScorerError(f"{len(prompts)} prompts but {len(responses)} responses: want equal")
        if not prompts:
            return torch.zeros(0)
        both = []
        for texts, keep in ((prompts, keep_prompts), (responses, False)):
            unique = tuple(dict.fromkeys(texts))
            place = {text: index for index, text in enumerate(unique)}
            order = torch.tensor([place[text] for text in texts])
            both.append(self._embedded(unique, keep=keep)[order])
        cosine = (both[0] * both[1]).sum(dim=1).clamp(-1.0, 1.0)
        pairs = zip(prompts, responses, strict=True)
        empty = torch.tensor([not (one.strip() and other.strip()) for one, other in pairs])
        return cosine.masked_fill(empty, 0.0)

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "U D"]:
        """Embeddings of L2 norm 1 on the CPU, in the order of the texts.

        Args:
            texts: of any length, empty ones allowed.

        Returns:
            One row per text, which does not depend on what else is in the batch.

        Raises:
            ScorerError: if the encoder fails or gives a number that is not finite.
        """
        try:
            states = self._pooled(texts)
        except DetoxError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise ScorerError(
                f"the encoder {self.encoder_id} failed on {len(texts)} texts: "
                f"{type(error).__name__}: {error}; change `{self._keys.path}`"
            ) from error
        bad = (~torch.isfinite(states)).any(dim=1).nonzero().flatten().tolist()
        if bad:
            raise ScorerError(
                f"the encoder {self.encoder_id} gave a number that is not finite for {len(bad)} "
                f"of {len(texts)} texts, the first {texts[bad[0]][:60]!r}; change "
                f"`{self._keys.path}`"
            )
        return torch.nn.functional.normalize(states, dim=1)

    def _embedded(self, texts: tuple[str, ...], *, keep: bool) -> Float[Tensor, "U D"]:
        """Embeddings, kept by the whole set: a set is always read in the same batches."""
        if texts in self._kept:
            return self._kept[texts]
        embeddings = self.embed(texts)
        if keep:
            if len(self._kept) >= _KEPT_SETS:
                del self._kept[next(iter(self._kept))]
            self._kept[texts] = embeddings
        return embeddings

    @torch.inference_mode()
    def _pooled(self, texts: Sequence[str]) -> Float[Tensor, "U D"]:
        windows = self._windower.windows(texts)
        firsts = list({one.text_index: one for one in reversed(windows)}.values())[::-1]
        own = processes().share(by_length(firsts))
        mine = [firsts[place] for place in own]
        pooled: dict[int, Tensor] = {}
        for batch in self._windower.batches(mine, self._batch_size, self._batch_tokens):
            everything = range(len(batch.window_indices))
            parts = fitted(self._batches, everything, partial(self._read, batch))
            rows = [row for _, read in parts for row in read]
            for place, row in zip(batch.window_indices.tolist(), rows, strict=True):
                pooled[own[place]] = row.clone()
        everyone = [one for part in processes().gather(pooled) for one in part.items()]
        return torch.stack([row for _, row in sorted(everyone, key=lambda one: one[0])])

    def _read(self, batch: WindowBatch, rows: range) -> Float[Tensor, "W D"]:
        """Pooled states of some windows of a batch, on the CPU."""
        part = batch.part(rows)
        output = self._model(
            input_ids=part.input_ids.to(self._device),
            attention_mask=part.attention_mask.to(self._device),
        )
        states: Tensor = output.last_hidden_state.float().cpu()
        mask = part.attention_mask[:, :, None]
        mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
        advance(len(rows))
        return states[:, 0] if self._cls else mean

    def _check_padding(self) -> None:
        alone = torch.cat([self.embed([text]) for text in _PROBES])
        distance = float((alone - self.embed(_PROBES)).norm(dim=1).max())
        if not distance <= _TOLERANCE.get(self._model.dtype, _HALF_TOLERANCE):
            raise ScorerError(
                f"padding changes what the encoder {self.encoder_id} reads: an embedding moves by "
                f"{distance:.3g} in a padded batch; want {self._keys.wanted} whose tokenizer has a "
                f"padding token; change `{self._keys.path}`"
            )


def _load(plan: EncoderPlan, device: torch.device) -> tuple[Any, PreTrainedTokenizerBase]:
    """Weights in evaluation mode, without gradients, and tokenizer."""
    shared: dict[str, Any] = {
        "revision": plan.revision,
        **NO_CODE,
        "local_files_only": Path(plan.place).is_dir(),
    }
    check_weight_files(plan.place, plan.revision, plan.keys)
    try:
        tokenizer = AutoTokenizer.from_pretrained(plan.place, **shared)
        # Transformers draws a pooler that is lacking; no draw of training may depend on that.
        with torch.random.fork_rng(devices=[]):
            model, info = AutoModel.from_pretrained(
                plan.place,
                use_safetensors=True,
                dtype=scorer_dtype(device),
                output_loading_info=True,
                **shared,
            )
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise model_load_error(plan.path, plan.keys, error) from error
    lacking = [name for name in sorted(info["missing_keys"]) if "pooler" not in name.split(".")]
    lacking += sorted(str(one) for one in info["mismatched_keys"])
    if lacking:  # transformers would fill them with random numbers and only warn
        raise ScorerError(
            f"the weights of {plan.path} lack {', '.join(lacking[:4])}: want {plan.keys.wanted}; "
            f"change `{plan.keys.path}`"
        )
    check_finite(model, plan.path, plan.keys)
    check_special_tokens(model, tokenizer, plan.keys)
    agree_on_padding(model, tokenizer)
    return model.to(device).eval().requires_grad_(False), tokenizer


def _pooling(path: str, place: str, revision: str | None, keys: ModelKeys) -> str:
    """How sentence-transformers would pool the states; the mean where its files are lacking."""
    modules = _stored(path, place, revision, "modules.json", keys) or []
    folders = []
    for module in modules:
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            folders.append(str(module.get("path")))
        elif kind not in ("Transformer", "Normalize") or (
            kind == "Transformer" and module.get("path")
        ):
            raise ScorerError(
                f"modules.json of the encoder {path} has a {kind} in {module.get('path')!r}, want "
                f"a Transformer at the top, a Pooling and perhaps Normalize; change `{keys.path}`"
            )
    for folder in folders or ["1_Pooling"]:
        config = _stored(path, place, revision, f"{folder}/config.json", keys)
        if config is not None:
            return _mode(path, config, keys)
    return "mean"


def _mode(path: str, config: dict[str, Any], keys: ModelKeys) -> str:
    """The one pooling that a file of sentence-transformers says."""
    modes = [
        name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for name, value in config.items()
        if name.startswith("pooling_mode_") and value is True
    ]
    if isinstance(config.get("pooling_mode"), str):  # newer files
        modes = [config["pooling_mode"]]
    if len(modes) != 1 or modes[0] not in _MODES:
        raise ScorerError(
            f"the encoder {path} pools by {', '.join(modes) or 'nothing'} (1_Pooling/config.json), "
            f"want mean or cls; change `{keys.path}`"
        )
    return modes[0]


def _stored(path: str, place: str, revision: str | None, name: str, keys: ModelKeys) -> Any:
    """A JSON file beside the weights; None where there is none."""
    file = cached_file(place, name, revision=revision, **_QUIET)
    if file is None:
        return None
    try:
        return parse_json(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ScorerError(
            f"{name} of the encoder {path} is no JSON ({error}); change `{keys.path}`"
        ) from error
