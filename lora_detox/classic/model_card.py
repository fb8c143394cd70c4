"""The README beside a saved model."""

from pathlib import Path

from peft import PeftModel

from lora_detox import __version__
from lora_detox.classic.models import PreTrainedModelWrapper

_CARD = """---
library_name: {library}
tags:
- lora-detox
- ppo
- reinforcement-learning
{base_line}---

# {name}

A {kind} fine-tuned by proximal policy optimization with `lora_detox.classic` {version}.

```python
{usage}
```
"""
_PEFT = """from peft import AutoPeftModelFor{head}

model = AutoPeftModelFor{head}.from_pretrained("{name}")"""
_FULL = """from transformers import AutoModelFor{head}

model = AutoModelFor{head}.from_pretrained("{name}")"""


def write_model_card(folder: Path, name: str, model: PreTrainedModelWrapper) -> Path:
    """Write `README.md`; nothing is asked of the hub.

    Args:
        folder: is made if need be.
        name: title of the card.
        model: what was trained.

    Returns:
        Path of the card.
    """
    adapter = isinstance(model.pretrained_model, PeftModel)
    base = str(getattr(model.config, "_name_or_path", "") or "")
    known = base and not Path(base).exists()  # a folder's path is nobody else's business
    head = "Seq2SeqLM" if model.encoder_decoder else "CausalLM"
    text = _CARD.format(
        library="peft" if adapter else "transformers",
        base_line=f"base_model: {base}\n" if known else "",
        name=name,
        kind="LoRA adapter" if adapter else "language model",
        version=__version__,
        usage=(_PEFT if adapter else _FULL).format(head=head, name=name),
    )
    folder.mkdir(parents=True, exist_ok=True)
    card = folder / "README.md"
    card.write_text(text, encoding="utf-8")
    return card
