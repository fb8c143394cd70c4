"""The embedded miniature: four really trained tiny models and a synthetic text generator.

Everything here ships with the package, so a run works with no download. The models are made by
``recipes/embedded/build.py``; the text comes from :mod:`lora_detox.embedded.corpus`.
"""

from pathlib import Path
from typing import Final

MODEL_NAMES: Final = ("t5", "gptj", "reward", "judge")


def embedded_path(name: str) -> Path:
    """Folder of an embedded model, readable by ``from_pretrained``.

    Args:
        name: "t5" (summariser), "gptj" (comment writer), "reward" or "judge" (classifiers).

    Returns:
        The folder with config, weights and tokenizer.

    Raises:
        ValueError: If there is no embedded model of that name.
    """
    if name not in MODEL_NAMES:
        choices = ", ".join(MODEL_NAMES)
        raise ValueError(f"no embedded model {name!r}; choose one of: {choices}")
    return Path(__file__).parent / "weights" / name
