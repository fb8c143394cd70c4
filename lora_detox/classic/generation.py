"""`PPOTrainer.generate` and the reference that may answer beside the policy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lora_detox.classic.advice import Adviser
from lora_detox.classic.models import PreTrainedModelWrapper
from lora_detox.classic.reading import ResponseReading
from lora_detox.classic.writing import Task, write


class PPOGeneration(ResponseReading):
    """Writes responses.

    Attributes:
        ref_model: the reference, None for the policy without its adapter.
        adviser: warns of sampling that `step` cannot score.
        current_device: where queries go.
    """

    ref_model: Any
    adviser: Adviser
    current_device: torch.device

    def generate(
        self,
        query_tensor: Tensor | list[Tensor],
        length_sampler: Callable[[], int] | None = None,
        batch_size: int = 4,
        return_prompt: bool = True,
        generate_ref_response: bool = False,
        **generation_kwargs: Any,
    ) -> Any:
        """Write responses, with dropout off and LoRA merged into fp32 weights.

        Args:
            query_tensor: token ids of one query, or a list of them.
            length_sampler: draws `max_new_tokens`, for each batch anew.
            batch_size: queries of a list that are answered together.
            return_prompt: leave the query before the response of a decoder-only model.
            generate_ref_response: return the reference's responses too.
            **generation_kwargs: of Transformers' `generate`; `min_length=-1` and `top_k=0.0` too.

        Returns:
            [1, L] for one query, a list of one-dimensional tensors for a list; with
            `generate_ref_response` a pair of these.

        Raises:
            ValueError: a tensor that is not one-dimensional.
        """
        single = isinstance(query_tensor, Tensor)
        queries = [query_tensor] if isinstance(query_tensor, Tensor) else list(query_tensor)
        if any(query.dim() != 1 for query in queries):
            raise ValueError("query_tensor must be a tensor of shape [Q] or a list of such tensors")
        options = {"pad_token_id": self.pad_id} | generation_kwargs
        self.adviser.on_generation(options, self.model.backbone.generation_config)
        queries = [query.to(self.current_device) for query in queries]

        task = Task(
            batch_size=1 if single else batch_size,
            length_sampler=length_sampler,
            eos_id=None if single else self.tokenizer.eos_token_id,
            return_prompt=return_prompt,
            encoder_decoder=self.is_encoder_decoder,
            pad_id=self.pad_id,
            options=options,
        )

        def respond(model: Any) -> Any:
            rows = write(model, queries, task)
            return rows[0][None] if single else rows

        responses = respond(self.model)
        if not generate_ref_response:
            return responses
        with self._reference() as reference:
            return responses, respond(reference)

    @contextmanager
    def _reference(self) -> Iterator[PreTrainedModelWrapper]:
        """The reference: its own model, or the policy with its adapter off."""
        if self.ref_model is not None:
            yield self.ref_model
        else:
            with self.model.pretrained_model.disable_adapter():
                yield self.model
