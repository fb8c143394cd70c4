"""The gradient of a minibatch, out of the shares of several processes."""

from collections.abc import Iterable

import torch
from torch import nn

from lora_detox.processes import processes


def add_up_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients of this process's rows by those of the whole minibatch.

    Each process has divided its losses by the tokens of the whole minibatch, so that the sum is the
    gradient of one process with all rows. Only the adapter and the value head learn: all gradients
    travel as one flat tensor in fp32, with a number per parameter of how many processes have a
    gradient of it. A parameter of which none has stays without, as an optimizer treats that
    otherwise than a gradient of 0.

    Args:
        parameters: that learn, in the same order in every process.
    """
    learned = list(parameters)
    if processes().size == 1 or not learned:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in learned]
    having = torch.tensor([float(p.grad is not None) for p in learned], device=learned[0].device)
    flat = torch.cat([*(one.float().flatten() for one in gradients), having])
    processes().add_up(flat)
    *gradients, having = flat.split([*(p.numel() for p in learned), len(learned)])
    for p, gradient, count in zip(learned, gradients, having.tolist(), strict=True):
        if count:
            p.grad = gradient.view_as(p).to(p.dtype)
