"""The value head: one scalar per response token, outside PEFT."""

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

FILE_NAME = "value_head.safetensors"


class ValueHead(nn.Module):
    """fp32, zero-initialised, no dropout, so that training starts from a value of exactly 0.

    Args:
        hidden_size: H of the backbone.
        device: where the head lives.
    """

    def __init__(self, hidden_size: int, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 1, device=device, dtype=torch.float32)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Float[Tensor, "N H"]) -> Float[Tensor, "N"]:
        """Value of each state, in units of the reward."""
        values: Tensor = self.linear(hidden.float()).squeeze(-1)
        return values

    def save(self, directory: Path) -> None:
        """Write `value_head.safetensors` into a directory."""
        state = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(state, directory / FILE_NAME)

    def load(self, directory: Path) -> None:
        """Read `value_head.safetensors`; strict, so a wrong file is an error."""
        self.load_state_dict(load_file(directory / FILE_NAME), strict=True)
