"""The value head as old programs and their files know it: `v_head.summary`, with dropout."""

from typing import Any

from torch import Tensor, nn
from transformers import PretrainedConfig


class ValueHead(nn.Module):
    """A scalar for every state; unlike the engine's head randomly initialised, as files expect.

    Args:
        config: of the wrapped model; its `summary_dropout_prob` goes before the keyword's.
        summary_dropout_prob: dropout before the linear map; off outside training mode, and the
            trainer never leaves it on.
        v_head_init_strategy: None for torch's default, "normal" for mean 0.
        v_head_initializer_range: standard deviation with "normal".
    """

    def __init__(
        self,
        config: PretrainedConfig,
        summary_dropout_prob: float = 0.1,
        v_head_init_strategy: str | None = None,
        v_head_initializer_range: float = 0.2,
    ) -> None:
        super().__init__()
        dropout = getattr(config, "summary_dropout_prob", summary_dropout_prob)
        self.dropout: nn.Module = nn.Dropout(dropout) if dropout else nn.Identity()
        self.summary = nn.Linear(hidden_size(config), 1)
        if v_head_init_strategy == "normal":
            nn.init.normal_(self.summary.weight, mean=0.0, std=v_head_initializer_range)
            nn.init.zeros_(self.summary.bias)
        elif v_head_init_strategy is not None:
            raise ValueError(
                f"v_head_init_strategy is {v_head_init_strategy!r}; want None, 'normal'"
            )

    def forward(self, hidden: Tensor) -> Tensor:
        """Values [..., 1] of states [..., H], in the head's own dtype (fp32)."""
        values: Tensor = self.summary(self.dropout(hidden.to(self.summary.weight.dtype)))
        return values


def hidden_size(config: Any) -> int:
    """Width of the states that the output matrix reads (OPT-350m projects them)."""
    size = getattr(config, "word_embed_proj_dim", None) or getattr(config, "hidden_size", None)
    return int(size or config.decoder.hidden_size)
