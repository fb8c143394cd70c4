"""What a user does after a run: load the adapter and write with it, run again, go on."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_detox.json_text import parse_json
from lora_detox.report.wording import keeps_start

PROGRAM = ("python", "-m", "lora_detox")
_NOT_REPEATED = ("seed=", "resume=", "hydra.run.dir=", "hydra.sweep.")
_QUANTIZED = {
    "int8": "load_in_8bit=True",
    "nf4": 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.{dtype}',
}


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How a policy is asked, as a run asked it.

    Attributes:
        text: an example prompt in the task's template.
        chat: whether it is a user message of the tokenizer's chat template.
        system: message of the system before it.
        new_tokens: most tokens of a response.
    """

    text: str = "I think that people who"
    chat: bool = False
    system: str | None = None
    new_tokens: int = 32


@dataclass(frozen=True, kw_only=True)
class LoadedAs:
    """What plain Transformers and PEFT have to be told.

    Attributes:
        auto: the auto class.
        base: hub id or folder of the base.
        adapter: the same of the adapter.
        tokenizer: the same of the tokenizer.
        revision: of the base; None for the newest.
        dtype: of the base's weights in training, such as bfloat16; None leaves it to the base.
        quantization: none | int8 | nf4.
        usage: an example.
    """

    auto: str
    base: str
    adapter: str
    tokenizer: str
    revision: str | None = None
    dtype: str | None = None
    quantization: str = "none"
    usage: Usage = field(default_factory=Usage)

    def lines(self) -> list[str]:
        """Python that loads base and adapter as they were trained and writes one response."""
        quantized = self.quantization in _QUANTIZED
        further = ", BitsAndBytesConfig" if quantized else ""
        revision = f", revision={self.revision!r}" if self.revision else ""
        tokenizer_revision = revision if self.tokenizer == self.base else ""
        keywords = revision
        if self.dtype:
            keywords += f", dtype=torch.{self.dtype}"
        lines = [
            "import torch",
            "from peft import PeftModel",
            f"from transformers import AutoTokenizer, {self.auto}{further}",
            f"tokenizer = AutoTokenizer.from_pretrained({self.tokenizer!r}{tokenizer_revision})",
        ]
        if self.quantization == "int8" and self.dtype != "float16":
            quiet = 'logging.getLogger("bitsandbytes").setLevel("ERROR")'
            lines = ["import logging", *lines, f"{quiet}  # else a line for every product"]
        if quantized:
            stored = _QUANTIZED[self.quantization].format(dtype=self.dtype or "float16")
            lines.append(f"bits = BitsAndBytesConfig({stored})")
            keywords += ", quantization_config=bits"
        return [
            *lines,
            f"base = {self.auto}.from_pretrained({self.base!r}{keywords})",
            f"model = PeftModel.from_pretrained(base, {self.adapter!r}).eval()",
            *self._asking(),
        ]

    def _asking(self) -> list[str]:
        usage, sampling = self.usage, "do_sample=True, top_k=0"
        if usage.chat:
            system = [{"role": "system", "content": usage.system}] if usage.system else []
            messages = [*system, {"role": "user", "content": usage.text}]
            asked = [
                f"messages = {messages!r}",
                "inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, "
                'return_tensors="pt", return_dict=True)',
            ]
        else:
            asked = [f'inputs = tokenizer({usage.text!r}, return_tensors="pt")']
        causal = self.auto == "AutoModelForCausalLM"
        start = "inputs['input_ids'].shape[1]:" if causal else ":"
        return [
            *asked,
            f"output = model.generate(**inputs.to(base.device), {sampling}, "
            f"max_new_tokens={usage.new_tokens})",
            f"print(tokenizer.decode(output[0, {start}], skip_special_tokens=True))",
        ]


def usage_of(summary: Mapping[str, Any]) -> Usage:
    """How the policy of a run was asked; runs from before `usage` get an example of no task."""
    return Usage(**(summary.get("usage") or {}))


def loaded_from(summary: Mapping[str, Any], directory: Path) -> LoadedAs:
    """How the adapter in a run directory is loaded.

    Args:
        summary: the `summary.json` dict.
        directory: the run directory.

    Returns:
        Base and class as PEFT wrote them down, dtype and quantization of the run.
    """
    adapter = directory / "adapter"
    try:
        config = parse_json((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    causal = config.get("task_type") == "CAUSAL_LM"
    return LoadedAs(
        auto="AutoModelForCausalLM" if causal else "AutoModelForSeq2SeqLM",
        base=str(config.get("base_model_name_or_path") or summary.get("policy", "")),
        adapter=str(adapter),
        tokenizer=str(adapter),
        revision=config.get("revision"),
        dtype=(summary.get("parameters") or {}).get("base_dtype"),
        quantization=str(summary.get("quantization", "none")),
        usage=usage_of(summary),
    )


def again(summary: Mapping[str, Any], *further: str, without: Sequence[str] = ()) -> str:
    """The command of a run with its own overrides, but another seed or other keys.

    Args:
        summary: the `summary.json` dict; where it has no `overrides` its task alone is repeated.
        *further: overrides in the place of those of the same key.
        without: beginnings of overrides that are left out.

    Returns:
        One line for a shell, in a run directory of its own.
    """
    keys = tuple(one.split("=", 1)[0] + "=" for one in further)
    task = f"task={summary.get('task', 'flan_summary')}"
    overrides: Sequence[str] = summary.get("overrides", [task])
    replaced = (*_NOT_REPEATED, *keys, *without)
    kept = [one for one in overrides if not one.lstrip("+~").startswith(replaced)]
    return shlex.join([*PROGRAM, *kept, *further])


def next_steps(summary: Mapping[str, Any], directory: Path) -> list[str]:
    """What to do with a run's result.

    Args:
        summary: the `summary.json` dict.
        directory: the run directory.

    Returns:
        Plain lines.
    """
    seed = summary.get("seed", 0)
    seed = seed + 1 if isinstance(seed, int) else 1
    if summary.get("tiny_model"):  # nothing of it can be used, or broken by training
        real = again(summary, without=("debug=", "debug."))
        return ["What to do next", f"- the path works to its end; with the real policy: {real}"]
    if keeps_start(summary):
        return [
            "What to do next",
            f"- see in {directory / 'report.html'} which bound was broken, and when",
            "- give training more room or more time: loosen that bound (budget.*), raise "
            "algorithm.iterations, or lower algorithm.learning_rate",
            f"- see whether it is this seed: {again(summary, f'seed={seed}')}",
        ]
    return [
        "What to do next",
        "- load the adapter with plain PEFT and write with it:",
        *(f"    {line}" for line in loaded_from(summary, directory).lines()),
        f"- see whether it holds with another seed: {again(summary, f'seed={seed}')}",
        "- use your own model and classifiers: "
        "policy.path=, reward.path= and judge.path= take a folder or a hub name",
    ]
