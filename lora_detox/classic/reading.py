"""Model inputs and forward passes under their old names."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerBase

from lora_detox.classic import forward
from lora_detox.classic.config import PPOConfig
from lora_detox.classic.layout import Rows, actions_of, lay_out, mask_of, pad
from lora_detox.classic.models import PreTrainedModelWrapper
from lora_detox.rollout.passes import Passes


class ResponseReading:
    """What policy and reference say of queries and responses.

    Attributes:
        config: read whenever a method runs.
        model: the policy.
        tokenizer: its pad token and padding side are read whenever a method runs.
        accelerator: of the `accelerate` library.
        casts: leave mixed precision to the accelerator's autocast.
    """

    config: PPOConfig
    model: PreTrainedModelWrapper
    tokenizer: PreTrainedTokenizerBase
    accelerator: Any
    casts: bool = True
    _strict_trl_masks: bool | None = None

    @property
    def strict_trl_masks(self) -> bool:
        """True where the old encoder-decoder mask is reproduced."""
        own = self._strict_trl_masks
        return self.is_encoder_decoder and (self.config.strict_trl_masks if own is None else own)

    @property
    def is_encoder_decoder(self) -> bool:
        """The policy's family."""
        return bool(self.model.encoder_decoder)

    @property
    def pad_id(self) -> int:
        """Id that fills padding; masks never come from it."""
        ids = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return int(next(i for i in ids if i is not None))

    def _start_id(self) -> int | None:
        config = self.model.backbone.config
        return int(config.decoder_start_token_id) if self.is_encoder_decoder else None

    def prepare_model_inputs(
        self, queries: Sequence[Tensor], responses: Sequence[Tensor]
    ) -> BatchEncoding:
        """Padded ids and masks that the model reads.

        The decoder of an encoder-decoder model reads the start token and then the response,
        whether or not the program left the start token in the response.

        Args:
            queries: token ids of each query.
            responses: token ids of each response.

        Returns:
            `input_ids` and `attention_mask`, and `decoder_*` for encoder-decoder models.
        """
        start = self._start_id()
        if start is None:
            both = [torch.cat(pair) for pair in zip(queries, responses, strict=True)]
            ids, mask = pad(both, self.pad_id, self.tokenizer.padding_side)
            return BatchEncoding({"input_ids": ids, "attention_mask": mask.long()})
        ids, mask = pad(queries, self.pad_id, "right")
        read = list(responses)
        if not self.strict_trl_masks:
            actions = [actions_of(response, start) for response in responses]
            read = [torch.cat([row.new_tensor([start]), row]) for row in actions]
        decoder_ids, decoder_mask = pad(read, self.pad_id, "right")
        inputs = {"input_ids": ids, "attention_mask": mask.long()}
        inputs |= {"decoder_input_ids": decoder_ids, "decoder_attention_mask": decoder_mask.long()}
        return BatchEncoding(inputs)

    def batched_forward_pass(
        self,
        model: PreTrainedModelWrapper,
        queries: Sequence[Tensor],
        responses: Sequence[Tensor],
        model_inputs: Any,
        return_logits: bool = False,
        response_masks: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Logprobs, logits, values and mask of responses, `mini_batch_size` rows at a time.

        Dropout is off, with and without gradients. Numbers outside the mask are 0.

        Args:
            model: policy or reference.
            queries: token ids of each query.
            responses: token ids of each response.
            model_inputs: of `prepare_model_inputs`.
            return_logits: return the logits too, which costs memory.
            response_masks: 1 at the response tokens that count.

        Returns:
            Logprobs [B, T-1], logits [B, T-1, V] or None, values [B, T-1] and mask [B, T-1], where
            T is the width of what the model (or its decoder) reads.
        """
        said = self._said(model, queries, responses, model_inputs, return_logits)
        if self.strict_trl_masks:
            mask = _old_mask(model_inputs["decoder_attention_mask"], response_masks)
        else:
            width = _width(model_inputs)
            rows = self._rows(queries, responses, width)
            mask = mask_of(rows, width, responses, response_masks)
        return said.logprobs, said.logits, said.values, mask

    def _said(
        self,
        model: PreTrainedModelWrapper,
        queries: Sequence[Tensor],
        responses: Sequence[Tensor],
        model_inputs: Any,
        with_logits: bool,
    ) -> forward.Said:
        """All rows in chunks of similar length, back in their order."""
        read, written = (torch.tensor([len(row) for row in rows]) for rows in (queries, responses))
        order = (read + written).argsort(descending=True, stable=True)
        passes = Passes.on(
            self.accelerator.device, self.config.mini_batch_size, dtype=model.backbone.dtype
        )
        parts = []
        casting = self.accelerator.autocast() if self.casts else nullcontext()
        with forward.without_dropout(model), casting:
            for chunk in order.split(passes.cut(read[order].tolist(), written[order].tolist())):
                if self.strict_trl_masks:
                    inputs = {k: v[chunk.to(v.device)] for k, v in model_inputs.items()}
                    part = forward.say_plainly(model, inputs, with_logits=with_logits)
                else:
                    some = [[source[i] for i in chunk.tolist()] for source in (queries, responses)]
                    width = _width(model_inputs)
                    rows = self._rows(some[0], some[1], width)
                    part = forward.say(model, rows, width, with_logits=with_logits)
                parts.append(part)
        said = forward.stack(parts)
        return said.in_order(order.argsort())

    def _rows(self, queries: Sequence[Tensor], responses: Sequence[Tensor], width: int) -> Rows:
        start = self._start_id()
        return lay_out(
            queries,
            [actions_of(response, start) for response in responses],
            encoder_decoder=self.is_encoder_decoder,
            width=width,
            padding_side=self.tokenizer.padding_side,
            pad_id=self.pad_id,
        )


def _width(model_inputs: Any) -> int:
    key = "decoder_input_ids" if "decoder_input_ids" in model_inputs else "input_ids"
    return int(model_inputs[key].shape[1]) - 1


def _old_mask(attention_mask: Tensor, response_masks: Sequence[Tensor] | None) -> Tensor:
    """TRL's mask of an encoder-decoder: from the second position to the last but one.

    Position 0 predicts the first token after the one that stands first in the response, so that
    token is left out of everything.
    """
    mask = attention_mask[:, 1:].clone()
    mask[:, 0] = 0
    for row, own in enumerate(response_masks or ()):
        counts = int(attention_mask[row].sum()) - 1
        mask[row, :counts] *= own[len(own) - counts :].long()
    return mask
