"""From a batch with advantages to new weights: mini-batches, backward, optimizer steps."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lora_detox.classic.advice import caution
from lora_detox.classic.config import PPOConfig
from lora_detox.classic.forward import without_dropout
from lora_detox.classic.models import PreTrainedModelWrapper


@dataclass(frozen=True, kw_only=True)
class Experience:
    """Queries, responses and all that the epochs learn from.

    Attributes:
        queries: token ids of each query.
        responses: token ids of each response.
        inputs: of `layout.model_inputs`.
        tensors: `logprobs`, `values`, `masks`, `advantages` and `returns`, each [B, T-1].
    """

    queries: list[Tensor]
    responses: list[Tensor]
    inputs: Mapping[str, Tensor]
    tensors: dict[str, Tensor]

    def minibatch(self, rows: Tensor) -> "Experience":
        """Some of the rows, by number [b]."""
        numbers = rows.tolist()
        return Experience(
            queries=[self.queries[i] for i in numbers],
            responses=[self.responses[i] for i in numbers],
            inputs={name: part[rows.to(part.device)] for name, part in self.inputs.items()},
            tensors={name: part[rows.to(part.device)] for name, part in self.tensors.items()},
        )

    def minibatches(self, size: int) -> Iterator["Experience"]:
        """All rows in mini-batches of `size`, in the order of numpy's global generator."""
        order = torch.from_numpy(np.random.permutation(len(self.queries)))  # noqa: NPY002
        for rows in order.split(size):
            yield self.minibatch(rows)


@dataclass
class Accumulation:
    """Mini-batches since the last optimizer step; each trainer has its own.

    Attributes:
        minibatches: how many there were, skipped ones included.
        backwards: how many of them left a gradient.
    """

    minibatches: int = 0
    backwards: int = 0

    def reset(self) -> None:
        """Begin anew."""
        self.minibatches = self.backwards = 0


@dataclass(frozen=True, kw_only=True)
class Learner:
    """Backward passes and optimizer steps.

    Attributes:
        config: `gradient_accumulation_steps`, `max_grad_norm` and early stopping.
        model: the policy.
        optimizer: accelerate's, over the program's own or Adam.
        accelerator: of the `accelerate` library.
        accumulation: counts mini-batches towards the next step; changed by each call.
    """

    config: PPOConfig
    model: PreTrainedModelWrapper
    optimizer: Any
    accelerator: Any
    accumulation: Accumulation

    def learn(self, loss: Tensor) -> None:
        """Backward of one mini-batch, and an optimizer step when enough have accumulated.

        Args:
            loss: scalar; without gradient where the mini-batch is skipped.
        """
        if loss.requires_grad and not bool(torch.isfinite(loss)):
            _warn_of_skip("loss")
        elif loss.requires_grad:
            with without_dropout(self.model):  # checkpoints recompute as the forward computed
                self.accelerator.backward(loss * self._share())
            self.accumulation.backwards += 1
        self.accumulation.minibatches += 1
        if self.accumulation.minibatches >= self.config.gradient_accumulation_steps:
            self._take_step()

    def _share(self) -> float:
        """Weight of a mini-batch in its step.

        Accelerate divides by the accumulation of whichever trainer of this process set it last.
        """
        steps: int = self.accelerator.gradient_accumulation_steps
        return steps / self.config.gradient_accumulation_steps

    def _take_step(self) -> None:
        """One optimizer step, unless nothing was accumulated or a gradient is not finite."""
        any_gradient = self.accumulation.backwards > 0
        self.accumulation.reset()
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
            _warn_of_skip("gradient")
        elif any_gradient or self.accelerator.num_processes > 1:
            # Accelerate's optimizer passes a step over while another trainer of this process, ended
            # halfway through its own accumulation, has left this flag down.
            self.accelerator.gradient_state.sync_gradients = True
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)

    def ends_early(self, policykl: float) -> bool:
        """True if the epochs should end: KL(old || new) is past 1.5 * `target_kl`.

        What has accumulated is then dropped.

        Args:
            policykl: of the last mini-batch, nats per token.

        Returns:
            Always False without `early_stopping`.
        """
        if not self.config.early_stopping:
            return False
        mean = torch.tensor(policykl, device=self.accelerator.device)
        stop = float(self.accelerator.reduce(mean, "mean")) > 1.5 * self.config.target_kl
        if stop:
            self.optimizer.zero_grad(set_to_none=False)
            self.accumulation.reset()
        return stop


def run_epochs(
    experience: Experience, learner: Learner, learn: Callable[[Experience], dict[str, Tensor]]
) -> list[dict[str, Tensor]]:
    """Every mini-batch of every epoch.

    Args:
        experience: the batch.
        learner: its config has `ppo_epochs` and `mini_batch_size`; it may end the epochs early.
        learn: learns from one mini-batch and gives its statistics.

    Returns:
        Statistics of each mini-batch.
    """
    parts: list[dict[str, Tensor]] = []
    for _ in range(learner.config.ppo_epochs):
        for minibatch in experience.minibatches(learner.config.mini_batch_size):
            parts.append(learn(minibatch))
        if learner.ends_early(float(parts[-1]["policy/policykl"])):
            break
    return parts


def _warn_of_skip(what: str) -> None:
    """Warn that a mini-batch is left out."""
    caution(
        f"A mini-batch is skipped: its {what} is not finite (inf or nan). Check that every score "
        "is finite; lower learning_rate if all of them are."
    )
