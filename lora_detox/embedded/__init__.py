"""The embedded miniature: four really trained tiny models, an adapter, and text generators.

Everything here ships with the package, so a run works with no download. The models are made by
``recipes/embedded/build.py``; the text comes from :mod:`lora_detox.embedded.corpus`.
"""

from pathlib import Path
from typing import Final

MODEL_NAMES: Final = ("t5", "gptj", "reward", "judge")
POLICY_NAMES: Final = ("t5", "gptj")
"""Those that write text."""
ADAPTER_NAMES: Final = ("rewrite",)
"""LoRA adapters on embedded models: "rewrite" on "t5"."""


def embedded_path(name: str) -> Path:
    """Folder of an embedded model, readable by ``from_pretrained``.

    Args:
        name: "t5" (summariser), "gptj" (comment writer), "reward" or "judge" (classifiers), or
            "rewrite" (an adapter on "t5", readable by PEFT).

    Returns:
        The folder with config, weights and tokenizer.

    Raises:
        ValueError: If there is no embedded model of that name.
    """
    known = (*MODEL_NAMES, *ADAPTER_NAMES)
    if name not in known:
        choices = ", ".join(known)
        raise ValueError(f"no embedded model {name!r}; choose one of: {choices}")
    return Path(__file__).parent / "weights" / name
