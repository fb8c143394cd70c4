# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Peak memory with a large vocabulary: python -m recipes.benchmarks.vocabulary.

The shape of Llama 3.2 1B (128,256 tokens, 16 layers of width 2048) with random weights in bf16 and
LoRA of rank 16 on query and value. Two rows of 24 + 1,000 tokens go through the same work on either
side: logprobs of the policy, logprobs of the reference, then loss, backward pass and a step of
AdamW. The peer is the GRPO trainer of TRL that is installed, with its fused output matrix. Each
side is a process of its own. Its whole peak is compared: weights that a side has mapped and not yet
read count for it as soon as it reads them.

`--layers 2` is a quick look: what the vocabulary takes does not depend on depth. Results go to
vocabulary.json.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from recipes.lab.process import printed_json

STORED = Path(__file__).with_name("vocabulary.json")
ROWS, QUERY, RESPONSE = 2, 24, 1000
VOCABULARY = 128_256
SIDES = ("lora_detox", "trl")
MIB = 2**20


def write_llama(folder: Path, layers: int) -> None:
    """Random weights in bf16 with a tokenizer that knows its special tokens."""
    import torch  # noqa: PLC0415 - the process that compares needs none of this
    from transformers import LlamaConfig  # noqa: PLC0415

    from lora_detox.timing.shallow import write_shallow  # noqa: PLC0415

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=0,
    )
    write_shallow(folder, config, layers, torch.bfloat16, None)


def work_of_ours(folder: Path) -> Any:
    """Rollout and update of the main path, without a value head, as GRPO has none."""
    import torch  # noqa: PLC0415

    from lora_detox.advantages import estimate_advantages  # noqa: PLC0415
    from lora_detox.api import compose_settings  # noqa: PLC0415
    from lora_detox.builders.policy import adapter_plan, backbone_plan  # noqa: PLC0415
    from lora_detox.builders.training import make_optimizer, plan_of  # noqa: PLC0415
    from lora_detox.policy.loading import load_policy  # noqa: PLC0415
    from lora_detox.rollout import Responses, collect_rollout  # noqa: PLC0415
    from lora_detox.types import PromptBatch  # noqa: PLC0415
    from lora_detox.update import PpoUpdate  # noqa: PLC0415

    overrides = ["task=gptj_continuation", "algorithm=grpo", "policy=local", "device=cpu"]
    overrides += [f"policy.path={folder}", "policy.dtype=bfloat16", "algorithm.ppo_epochs=1"]
    sizes = ("rollout_batch_size", "minibatch_size", "microbatch_size", "responses_per_prompt")
    overrides += [f"algorithm.{size}={ROWS}" for size in sizes]
    overrides += ["adapter.targets=[q_proj,v_proj]", "adapter.rank=16"]
    settings = compose_settings(overrides, folder / "run")
    policy = load_policy(backbone_plan(settings, str(folder)), adapter_plan(settings))
    plan = plan_of(settings, torch.bfloat16)
    query, response = token_ids()
    every = torch.ones_like
    prompts = PromptBatch(
        texts=[""] * ROWS,
        query_ids=query,
        query_mask=every(query).bool(),
        references=[[]] * ROWS,
        row_ids=["0"] * ROWS,
    )
    responses = Responses(
        ids=response,
        mask=every(response).bool(),
        logprobs=torch.full(response.shape, -11.0),
        texts=[""] * ROWS,
    )
    optimizer = make_optimizer(settings.algorithm, policy)
    update = PpoUpdate(policy, optimizer, plan.ppo, plan.sampling, lambda iteration: 1e-4)
    with torch.no_grad():
        for parameter in policy.adapter_parameters():
            parameter.add_(1e-3)  # else policy and reference are one pass

    def work() -> None:
        rollout = collect_rollout(
            policy, prompts, responses, plan.sampling, **plan.collection, seed=0
        )
        score = torch.linspace(-1, 1, ROWS)
        update.step(rollout, estimate_advantages(rollout, score, 0.1, plan.advantages), 0)

    return work


def work_of_trl(folder: Path) -> Any:
    """The loss of TRL's GRPO trainer with its own passes for old and reference logprobs."""
    import torch  # noqa: PLC0415
    from datasets import Dataset  # noqa: PLC0415
    from peft import LoraConfig  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415
    from trl import GRPOConfig, GRPOTrainer  # noqa: PLC0415

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    arguments = GRPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=ROWS,
        num_generations=ROWS,
        beta=0.1,
        use_cpu=True,
        bf16=True,
        report_to=[],
        gradient_checkpointing=False,
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **columns: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["a"] * ROWS}),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=LoraConfig(r=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    query, response = token_ids()
    whole = torch.cat([query, response], dim=1)
    mask = torch.ones_like(whole)

    def scored() -> Any:
        return trainer._get_per_token_logps_and_entropies(trainer.model, whole, mask, RESPONSE)[0]

    def work() -> None:
        with torch.no_grad():
            old = scored()
            with trainer.model.disable_adapter():
                reference = scored()
        inputs = {
            "prompt_ids": query,
            "prompt_mask": torch.ones_like(query),
            "completion_ids": response,
            "completion_mask": torch.ones_like(response),
            "advantages": torch.linspace(-1, 1, ROWS),
            "old_per_token_logps": old,
            "ref_per_token_logps": reference,
            "num_items_in_batch": torch.tensor(ROWS * RESPONSE),
        }
        trainer._compute_loss(trainer.model, inputs).backward()
        optimizer.step()
        optimizer.zero_grad()

    return work


def token_ids() -> tuple[Any, Any]:
    """Queries [ROWS, QUERY] and responses [ROWS, RESPONSE], the same for both sides."""
    import torch  # noqa: PLC0415

    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, VOCABULARY, (ROWS, QUERY + RESPONSE), generator=draw)
    return ids[:, :QUERY], ids[:, QUERY:]


def measure(side: str, folder: Path) -> dict[str, float]:
    """Peak of this process while it works, what it held before, and seconds."""
    work = work_of_ours(folder) if side == SIDES[0] else work_of_trl(folder)
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    start = time.perf_counter()
    work()
    return {
        "before_mib": before / MIB,
        "peak_mib": _memory("VmHWM") / MIB,
        "seconds": time.perf_counter() - start,
    }


def _memory(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = re.findall(rf"^{name}:\s+(\d+) kB", status, flags=re.MULTILINE)
    return int(kilobytes) * 1024


def main() -> None:
    """Both sides in processes of their own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(measure(given.side, given.folder)))
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as temporary:
        write_llama(Path(temporary), given.layers)
        command = [sys.executable, "-m", "recipes.benchmarks.vocabulary", "--folder", temporary]
        results = {side: printed_json([*command, "--side", side]) for side in SIDES}
    ratio = results["lora_detox"]["peak_mib"] / results["trl"]["peak_mib"]
    STORED.write_text(json.dumps({"layers": given.layers, **results, "ratio": ratio}, indent=2))
    print("| side | before, MiB | peak of scoring and update, MiB | seconds |\n|---|---|---|---|")
    for side, row in results.items():
        print(
            f"| {side} | {row['before_mib']:.0f} | {row['peak_mib']:.0f} | {row['seconds']:.0f} |"
        )
    print(f"ours / TRL: {ratio:.2f}")


if __name__ == "__main__":
    main()
