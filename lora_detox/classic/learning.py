"""The epochs of a step: forward, loss, backward, optimizer."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lora_detox.classic.forward import without_dropout
from lora_detox.classic.objective import PPOObjective
from lora_detox.classic.reading import ResponseReading

REPLACEABLE = ("batched_forward_pass", "train_minibatch", "loss")
"""Methods that a program may have replaced; then they get whole logits, as they used to."""


class PPOLearning(PPOObjective, ResponseReading):
    """Turns a batch with advantages into new weights.

    Attributes:
        optimizer: accelerate's, over the program's own or Adam.
        ref_model: the reference, None for the policy without its adapter.
    """

    optimizer: Any
    ref_model: Any
    _waiting: int = 0
    _accumulated: int = 0

    def _run_epochs(
        self,
        queries: Sequence[Tensor],
        responses: Sequence[Tensor],
        inputs: Mapping[str, Tensor],
        batch: Mapping[str, Tensor],
    ) -> list[dict[str, Tensor]]:
        """Every mini-batch of every epoch, in the order of numpy's global generator.

        Args:
            queries: token ids of each query.
            responses: token ids of each response.
            inputs: of `prepare_model_inputs`.
            batch: logprobs, values, masks, advantages and returns [B, T-1].

        Returns:
            Statistics of each mini-batch.
        """
        parts: list[dict[str, Tensor]] = []
        lean = all(self._is_own(name) for name in REPLACEABLE)
        for _ in range(self.config.ppo_epochs):
            order = torch.from_numpy(np.random.permutation(len(queries)))  # noqa: NPY002
            for rows in order.split(self.config.mini_batch_size):
                some = {name: tensor[rows.to(tensor.device)] for name, tensor in batch.items()}
                model_inputs = {k: v[rows.to(v.device)] for k, v in inputs.items()}
                texts = [[source[i] for i in rows.tolist()] for source in (queries, responses)]
                parts.append(self._learn(texts[0], texts[1], model_inputs, some, lean=lean))
            if self._early_stop(float(parts[-1]["policy/policykl"])):
                break
        return parts

    def _is_own(self, name: str) -> bool:
        mine = getattr(PPOLearning, name)
        return getattr(type(self), name) is mine and name not in vars(self)

    def _learn(
        self,
        queries: Sequence[Tensor],
        responses: Sequence[Tensor],
        inputs: Mapping[str, Tensor],
        batch: Mapping[str, Tensor],
        *,
        lean: bool,
    ) -> dict[str, Tensor]:
        """One mini-batch, without whole logits where nobody reads them."""
        extra: dict[str, Tensor] = {}
        if lean:
            said = self._said(self.model, queries, responses, inputs, with_logits=False)
            logprobs, values, logits = said.logprobs, said.values, None
            extra = {"entropy": said.entropy}
        else:
            logprobs, logits, values, _ = self.batched_forward_pass(
                self.model, queries, responses, inputs, return_logits=True
            )
        return self.train_minibatch(
            batch["logprobs"],
            batch["values"],
            logprobs,
            logits,
            values,
            batch["masks"],
            batch["advantages"],
            batch["returns"],
            **extra,
        )

    def train_minibatch(  # noqa: PLR0913 - as programs call it
        self,
        old_logprobs: Tensor,
        values: Tensor,
        logprobs: Tensor,
        logits: Tensor | None,
        vpreds: Tensor,
        mask: Tensor,
        advantages: Tensor,
        returns: Tensor,
        *,
        entropy: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Backward of one mini-batch, and an optimizer step when enough have accumulated.

        Args:
            old_logprobs: when the responses were sampled [B, R].
            values: then.
            logprobs: now, with gradient.
            logits: now [B, R, V]; for the entropy only.
            vpreds: values now, with gradient.
            mask: 1 at the tokens that count.
            advantages: whitened.
            returns: of `compute_advantages`.
            entropy: of the distributions now, instead of `logits`.

        Returns:
            Statistics, as `loss` gives them.
        """
        extra = {} if entropy is None else {"entropy": entropy}
        policy, value, stats = self.loss(
            old_logprobs, values, logits, vpreds, logprobs, mask, advantages, returns, **extra
        )
        loss = policy + value
        if loss.requires_grad and not bool(torch.isfinite(loss)):
            self._on_skip("its loss is not finite")
        elif loss.requires_grad:
            with without_dropout(self.model):  # checkpoints recompute as the forward computed
                self.accelerator.backward(loss / self.config.gradient_accumulation_steps)
            self._accumulated += 1
        self._waiting += 1
        if self._waiting >= self.config.gradient_accumulation_steps:
            self._take_step()
        return stats

    def _take_step(self) -> None:
        """One optimizer step, unless nothing was accumulated or a gradient is not finite."""
        anything, self._waiting, self._accumulated = self._accumulated > 0, 0, 0
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        with_gradient = [p for p in parameters if p.grad is not None]
        if self.accelerator.num_processes > 1:
            for parameter in parameters:  # the same on all processes, also where one skipped
                own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self.accelerator.reduce(own, "mean")
            with_gradient = parameters
        self.accelerator.unscale_gradients()
        limit = self.config.max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(with_gradient, torch.inf if limit is None else limit)
        if not bool(torch.isfinite(norm)) and self.accelerator.scaler is None:
            self._on_skip("its gradient is not finite")
        elif anything or self.accelerator.num_processes > 1:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)

    def _early_stop(self, policykl: float) -> bool:
        """True if the epochs should end: KL(old || new) per token is past 1.5 * `target_kl`."""
        if not self.config.early_stopping:
            return False
        mean = torch.tensor(policykl, device=self.accelerator.device)
        stop = float(self.accelerator.reduce(mean, "mean")) > 1.5 * self.config.target_kl
        if stop:
            self.optimizer.zero_grad(set_to_none=False)
            self._waiting = self._accumulated = 0
        return stop

    def _both_say(
        self,
        queries: Sequence[Tensor],
        responses: Sequence[Tensor],
        inputs: Any,
        response_masks: Sequence[Tensor] | None,
        reference: AbstractContextManager[Any],
    ) -> dict[str, Tensor]:
        """Old logprobs, values, mask and reference logprobs; distributions for "full"."""
        full = self.config.kl_penalty == "full"
        logprobs, logits, values, masks = self.batched_forward_pass(
            self.model, queries, responses, inputs, full, response_masks
        )
        with reference as model:
            ref_logprobs, ref_logits, _, _ = self.batched_forward_pass(
                model, queries, responses, inputs, full
            )
        said = {
            "logprobs": logprobs,
            "ref_logprobs": ref_logprobs,
            "values": values,
            "masks": masks,
        }
        said |= {"policy": logprobs, "reference": ref_logprobs}
        if logits is not None and ref_logits is not None:
            said["policy"], said["reference"] = logits.log_softmax(-1), ref_logits.log_softmax(-1)
        return said
