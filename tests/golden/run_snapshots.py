"""Digests of tiny runs of both families, every algorithm and every stage, to compare two versions.

    python -m tests.golden.run_snapshots OUT.json             # make them with the code on the path
    python -m tests.golden.run_snapshots OUT.json BEFORE.json # and compare: a table, exit status 1

Processors round differently, so both files have to be made on one machine. A digest covers the
adapter's tensors, the value head, metrics.jsonl, samples.jsonl and summary.json, without times,
memory, versions and paths.
"""

import hashlib
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from lora_detox import api

SMOKE = ["debug=smoke", "threads=1", "generation.response_tokens=[4,8]", "data.limit=120"]
CAUSAL, SEQ2SEQ = "task=gptj_continuation", "task=flan_summary"
TRAINED = [f"algorithm={one}" for one in ("ppo", "rloo", "grpo", "reinforce", "best_of_n")]
TRL = [f"algorithm={one}" for one in ("trl_dpo", "trl_grpo", "trl_rloo")]
WITHOUT = (
    "seconds",
    "peak_memory_bytes",
    "memory_growth_bytes",
    "versions",
    "device",
    "command",
    "total_bytes",
)
WITHOUT += ("available_bytes", "fits", "stays", "advice", "policy")


def runs() -> dict[str, list[str]]:
    """Name of each run -> its overrides; `{NAME}` in one is the folder of that run."""
    found = {}
    for task in (CAUSAL, SEQ2SEQ):
        for algorithm in TRAINED + (TRL if task == CAUSAL else []):
            found[f"{task} {algorithm}"] = [task, algorithm]
        for override in ("budget=off", "guard=off", "adapter=dora", "adapter.scope=last_1"):
            found[f"{task} {override}"] = [task, override]
        found[f"{task} stage=sft"] = [task, "stage=sft", "sft.max_steps=2"]
        found[f"{task} stage=plan"] = [
            task,
            "stage=plan",
            "debug=none",
            "plan.memory_gib=1000",
            "plan.query_tokens=32",
        ]
        for protocol in ("plain", "trl_guide", "three_sets", "real_toxicity_prompts"):
            found[f"{task} stage=evaluate {protocol}"] = [
                task,
                "stage=evaluate",
                "debug=none",
                f"evaluation.protocol={protocol}",
                "evaluation.prompts=8",
                "data.min_toxicity=0.1",
            ]
        found[f"{task} stage=export"] = [
            task,
            "stage=export",
            f"run={{{task} algorithm=ppo}}",
            "export.path={here}/export",
        ]
    found["stage=reward_model"] = [
        "stage=reward_model",
        "data=embedded_labelled",
        "debug=none",
        "reward_model.max_steps=2",
    ]
    found["miniature ppo"] = [
        CAUSAL,
        "debug=none",
        "budget=off",  # else the start is the result, and nothing has moved
        "algorithm.iterations=2",
        "evaluation.every=1",
        "evaluation.validation_prompts=16",
        "evaluation.test_prompts=16",
    ]
    found["miniature second seed"] = [*found["miniature ppo"], "seed=1"]
    found["stage=soup"] = [
        *found["miniature ppo"],
        "stage=soup",
        "soup=[{miniature ppo},{miniature second seed}]",
    ]
    return found


def digest(folder: Path) -> str:
    """Of everything that a run computed."""
    hashed = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        if "checkpoints" in file.parts or "tiny_model" in file.parts:
            continue
        for name, tensor in sorted(load_file(file).items()):
            hashed.update(f"{file.relative_to(folder)} {name}".encode())
            hashed.update(tensor.contiguous().view(-1).numpy().tobytes())
    for name in ("metrics.jsonl", "samples.jsonl", "summary.json", "plan.json"):
        if (folder / name).is_file():
            rows = [json.loads(line) for line in _lines(folder / name)]
            text = json.dumps([_computed(row) for row in rows], sort_keys=True)
            hashed.update(re.sub(r'"/[^"]*"', '"PATH"', text).encode())
    return hashed.hexdigest()[:16]


def _lines(file: Path) -> list[str]:
    text = file.read_text(encoding="utf-8")
    return text.splitlines() if file.suffix == ".jsonl" else [text]


def _computed(node: Any) -> Any:
    if isinstance(node, dict):
        kept = {k: v for k, v in node.items() if not str(k).startswith(WITHOUT)}
        return {
            key: _computed(value)
            for key, value in kept.items()
            if key not in ("resamples", "words", "base_dtype")
        }
    return [_computed(one) for one in node] if isinstance(node, list) else node


def main() -> int:
    """Make the snapshots; with a second file, compare."""
    out, found = Path(sys.argv[1]), {}
    with tempfile.TemporaryDirectory() as temporary:
        folders: dict[str, str] = {}
        for place, (name, overrides) in enumerate(runs().items()):
            folders[name] = folders["here"] = str(Path(temporary) / f"{place:02d}")
            filled = [re.sub(r"{([^{}]+)}", lambda m: folders[m[1]], one) for one in overrides]
            api.run([*SMOKE, *filled], folders[name])
            found[name] = digest(Path(folders[name]))
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if len(sys.argv) < 3:
        return 0
    before = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    for name in before.keys() | found.keys():
        same = before.get(name) == found.get(name)
        print(f"{'same' if same else 'OTHER':6} {before.get(name)} {found.get(name)}  {name}")
    return int(before != found)


if __name__ == "__main__":
    sys.exit(main())
