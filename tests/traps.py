"""Model folders with a trap: Python files that leave a mark when something runs them."""

import json
from pathlib import Path

from transformers import BertConfig, BertForSequenceClassification, BertModel

from tests.tiny import VOCABULARY, tiny_backbone, tiny_tokenizer

_MODULE = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import (
    BertConfig, BertForSequenceClassification, BertModel, GPTJConfig, GPTJForCausalLM,
    PreTrainedTokenizerFast,
)
class TrapConfig(GPTJConfig):
    model_type = "trap"
class TrapModel(GPTJForCausalLM):
    config_class = TrapConfig
class TrapBertConfig(BertConfig):
    model_type = "trap"
class TrapEncoder(BertModel):
    config_class = TrapBertConfig
class TrapClassifier(BertForSequenceClassification):
    config_class = TrapBertConfig
class TrapTokenizer(PreTrainedTokenizerFast):
    pass
def generate(model, *args, **kwargs):
    return None
"""
_CLASSES = {
    "policy": {"AutoConfig": "trap.TrapConfig", "AutoModelForCausalLM": "trap.TrapModel"},
    "classifier": {
        "AutoConfig": "trap.TrapBertConfig",
        "AutoModelForSequenceClassification": "trap.TrapClassifier",
        "AutoModel": "trap.TrapEncoder",
    },
}
LABELS = {0: "civil", 1: "toxic"}


def tiny_bert(head: bool = True):
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        id2label=LABELS,
        label2id={name: index for index, name in LABELS.items()},
        pad_token_id=0,
    )
    return BertForSequenceClassification(config) if head else BertModel(config)


def write_model(folder: Path, kind: str) -> Path:
    """A harmless folder: a policy, or a classifier that also serves as an encoder."""
    model = tiny_backbone("gptj") if kind == "policy" else tiny_bert()
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def edit(file: Path, **changes) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**content, **changes}))


def set_trap(folder: Path, kind: str, where: str) -> Path:
    """Put the trap into a folder.

    Args:
        folder: of `write_model`.
        kind: "policy" or "classifier".
        where: "model" (of a type that only the module knows), "known" (of a known type, which
            points to the module all the same), "tokenizer", or "generate".

    Returns:
        The file that is there once the module has run.
    """
    mark = folder.parent / f"{folder.name}.ran"
    module = _MODULE.format(mark=str(mark))
    (folder / "trap.py").write_text(module)
    if where in ("model", "known"):
        changes = {"model_type": "trap"} if where == "model" else {}
        edit(folder / "config.json", auto_map=_CLASSES[kind], **changes)
    if where == "tokenizer":
        classes = ["trap.TrapTokenizer", "trap.TrapTokenizer"]
        changes = {"auto_map": {"AutoTokenizer": classes}, "tokenizer_class": "TrapTokenizer"}
        edit(folder / "tokenizer_config.json", **changes)
    if where == "generate":
        (folder / "custom_generate").mkdir()
        (folder / "custom_generate" / "generate.py").write_text(module)
    return mark
