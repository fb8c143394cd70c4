"""A sequence classifier as scorer: the usual reward, and the held-out classifier (`judge`)."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lora_detox.errors import DetoxError, ScorerError
from lora_detox.fitting import Batches, fitted, is_out_of_memory
from lora_detox.machine import CPU_BATCH_TOKENS
from lora_detox.processes import processes
from lora_detox.progress import advance
from lora_detox.scores.heads import ClassifierHead, ScoreOutput, checked_output, read_head
from lora_detox.scores.loading import check_classifier, identify, load_classifier, resolve_dtype
from lora_detox.scores.windows import (
    TokenWindow,
    WindowBatch,
    Windower,
    by_length,
    window_length,
)
from lora_detox.special_tokens import embedding_rows
from lora_detox.types import Scores

ScoredText = Literal["response", "prompt_response"]


class ClassifierScorer:
    """Scores responses by the civil label of a classifier.

    The score is by default the raw logit of the civil label, which trains more smoothly than
    probabilities (TRL's detoxification report). Toxicity is 1 - softmax[civil], or the sigmoid of
    the toxic label of a multi-label head. Texts past the model's limit are read in overlapping
    windows, and the most toxic window counts.

    Args:
        path: `embedded:reward`, `embedded:judge`, a local folder, or a hub id.
        label: the civil label (of a multi-label head: the toxic one) by name or index; None finds
            it by known names.
        output: "logit", "softmax" (softmax heads), "sigmoid" (multi-label heads) or "logprob" of
            the civil side.
        text: "response" alone, or "prompt_response" together.
        batch_size: most windows per forward; on a CPU also at most 1,024 tokens (`machine`).
        max_tokens: a window shorter than the model's limit, or None.
        dtype: "float32", "bfloat16", "float16" or "auto": float32 on a CPU, half on a GPU.
        device: where to score; None takes a GPU if there is one.
        revision: branch, tag or commit on the hub.
        key: settings group of the scorer, for messages.

    Raises:
        ScorerError: if it cannot be loaded, or its labels are unclear.
    """

    def __init__(  # noqa: PLR0913 - flat arguments, one per setting
        self,
        path: str,
        *,
        label: str | int | None = None,
        output: ScoreOutput = "logit",
        text: ScoredText = "response",
        batch_size: int = 64,
        max_tokens: int | None = None,
        dtype: str = "auto",
        device: torch.device | str | None = None,
        revision: str | None = None,
        key: str = "reward",
    ) -> None:
        self._head = check_classifier(path, label, key, revision)
        self._output = checked_output(output, self._head, key)
        self._text = checked_text(text, key)
        self._batch_size = max(1, batch_size)
        group = key.split(".", maxsplit=1)[0]
        self._batches = Batches(
            name=f"scoring ({key})", key=f"{group}.batch_size", shorter=f"{key}.max_tokens"
        )
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._batch_tokens = CPU_BATCH_TOKENS if place.type == "cpu" else None
        self._device = place
        self._model, tokenizer = load_classifier(
            self._head.path,
            device=place,
            dtype=resolve_dtype(dtype, place, key),
            revision=revision,
            key=key,
        )
        length = window_length(self._model, tokenizer, max_tokens)
        self._windower = Windower(tokenizer, length, key, embedding_rows(self._model.config))
        self._scorer_id = identify(path, self._head.path, self._model, revision)

    @property
    def scorer_id(self) -> str:
        """Path with the revision, or with a hash of the weights where there is none."""
        return self._scorer_id

    @property
    def head(self) -> ClassifierHead:
        """Labels of the classifier, and which of them is civil."""
        return self._head

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        dtype: torch.dtype = self._model.dtype
        return dtype

    def pads(self, texts: Sequence[str]) -> bool:
        """Whether whole texts, one window each, are read in one forward, the shorter padded."""
        windows = self._windower.windows(texts)
        batches = list(self._windower.batches(windows, self._batch_size, self._batch_tokens))
        whole = len(windows) == len(texts) and len(batches) == 1
        return whole and not bool(batches[0].attention_mask.all())

    def score(self, prompts: list[str], responses: list[str], **columns: Sequence[Any]) -> Scores:
        """Score each response; the result does not depend on what else is in the batch.

        Args:
            prompts: B prompt texts.
            responses: B response texts, empty ones allowed.
            **columns: not read.

        Returns:
            Scores on the CPU, in the order of the responses.

        Raises:
            ScorerError: if the classifier fails or gives a number that is not finite.
        """
        if len(prompts) != len(responses):
            raise ScorerError(f"{len(prompts)} prompts but {len(responses)} responses: want equal")
        texts = responses
        if self._text == "prompt_response":
            texts = [_join(*pair) for pair in zip(prompts, responses, strict=True)]
        unique = list(dict.fromkeys(texts))
        try:
            score, toxicity = self._score_unique(unique)
        except DetoxError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise ScorerError(
                f"the scorer {self.scorer_id} failed on {len(unique)} texts: "
                f"{type(error).__name__}: {error}"
            ) from error
        place = {text: index for index, text in enumerate(unique)}
        order = torch.tensor([place[text] for text in texts], dtype=torch.long)
        return Scores(
            score=score[order],
            toxicity=toxicity[order],
            parts={self._output: score[order]},
            scorer_id=self.scorer_id,
        )

    def _score_unique(self, texts: Sequence[str]) -> tuple[Float[Tensor, "U"], Float[Tensor, "U"]]:
        """Score and toxicity of each text: those of its most toxic window."""
        windows = self._windower.windows(texts)
        logits = self._window_logits(windows)
        self._check_finite(logits, windows, texts)
        window_score, window_toxicity = read_head(logits, self._head, self._output)
        worst: dict[int, int] = {}
        for place, (window, toxicity) in enumerate(
            zip(windows, window_toxicity.tolist(), strict=True)
        ):
            before = worst.get(window.text_index)
            if before is None or toxicity > float(window_toxicity[before]):
                worst[window.text_index] = place
        chosen = torch.tensor([worst[index] for index in range(len(texts))], dtype=torch.long)
        return window_score[chosen], window_toxicity[chosen]

    @torch.inference_mode()
    def _window_logits(self, windows: Sequence[TokenWindow]) -> Float[Tensor, "W L"]:
        logits = torch.empty(len(windows), len(self._head.id2label))
        own = processes().share(by_length(windows))
        mine = [windows[place] for place in own]
        for batch in self._windower.batches(mine, self._batch_size, self._batch_tokens):
            rows = range(len(batch.window_indices))
            for part, read in fitted(self._batches, rows, partial(self._read, batch)):
                logits[[own[at] for at in batch.part(part).window_indices.tolist()]] = read
        processes().fill(torch.tensor(own).long(), logits)
        return logits

    def _read(self, batch: WindowBatch, rows: range) -> Float[Tensor, "W L"]:
        """Logits of some windows of a batch, on the CPU."""
        part = batch.part(rows)
        output = self._model(
            input_ids=part.input_ids.to(self._device),
            attention_mask=part.attention_mask.to(self._device),
        )
        advance(len(rows))
        logits: Tensor = output.logits.float().cpu()
        return logits

    def _check_finite(
        self, logits: Float[Tensor, "W L"], windows: Sequence[TokenWindow], texts: Sequence[str]
    ) -> None:
        bad = (~torch.isfinite(logits)).any(dim=1).nonzero().flatten().tolist()
        if bad:
            text = texts[windows[bad[0]].text_index]
            raise ScorerError(
                f"the scorer {self.scorer_id} gave a number that is not finite for {len(bad)} of "
                f"{len(windows)} texts, the first {text[:60]!r}: want finite logits; try "
                "dtype float32"
            )


def checked_text(text: str, key: str) -> str:
    """The wanted text, if there is such a choice; raises ScorerError otherwise."""
    if text not in ("response", "prompt_response"):
        raise ScorerError(
            f"the text to score is `{text}`, want response or prompt_response; change `{key}.text`"
        )
    return text


def _join(prompt: str, response: str) -> str:
    """Prompt and response as one text, with white space between them."""
    glued = not prompt or not response or prompt[-1].isspace() or response[0].isspace()
    return prompt + response if glued else f"{prompt} {response}"
