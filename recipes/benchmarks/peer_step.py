# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "accelerate==0.34.2",
#   "datasets==2.21.0",
#   "peft==0.13.2",
#   "tokenizers",
#   "torch",
#   "transformers==4.45.2",
#   "trl==0.11.4",
# ]
# ///
"""Iterations of TRL 0.11.4's PPOTrainer on a workload; run by the peer's own interpreter.

    VENV/bin/python peer_step.py recipes/benchmarks/workloads/smollm2_135m.json [--iterations 1]

The random model, prompt lengths, adapter, minibatches and epochs are those of iteration.py; every
response has the same fixed length and the scores are a fixed pattern. The first iteration warms up
and is not counted. Prints one JSON line.
"""

import argparse
import json
import resource
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")

import torch  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from tokenizers import Tokenizer, models  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedTokenizerFast,
)
from trl import (  # noqa: E402
    AutoModelForCausalLMWithValueHead,
    AutoModelForSeq2SeqLMWithValueHead,
    PPOConfig,
    PPOTrainer,
)


def build_trainer(work: dict[str, Any]) -> PPOTrainer:
    """TRL's trainer on a random model in fp32, its reference the same model without adapter."""
    words = {f"t{i}": i for i in range(work["config"]["vocab_size"])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="t2")),
        pad_token="t0",
        eos_token="t1",
        unk_token="t2",
    )
    config = AutoConfig.for_model(work["family"], **work["config"])
    kind, wrapper, task = AutoModelForCausalLM, AutoModelForCausalLMWithValueHead, "CAUSAL_LM"
    if config.is_encoder_decoder:
        kind, wrapper = AutoModelForSeq2SeqLM, AutoModelForSeq2SeqLMWithValueHead
        task = "SEQ_2_SEQ_LM"
    adapter = work["adapter"]
    plan = LoraConfig(
        task_type=task,
        r=adapter["rank"],
        lora_alpha=adapter["alpha"],
        target_modules=adapter["targets"],
    )
    model = wrapper.from_pretrained(get_peft_model(kind.from_config(config), plan))
    model.is_peft_model = True
    settings = PPOConfig(
        batch_size=work["rollout_batch_size"],
        mini_batch_size=work["minibatch_size"],
        ppo_epochs=work["ppo_epochs"],
        learning_rate=work["learning_rate"],
        seed=0,
    )
    return PPOTrainer(settings, model, ref_model=None, tokenizer=tokenizer)


def measure(work: dict[str, Any], iterations: int) -> dict[str, list[float]]:
    """Seconds of generation and of the trainer's step, of each iteration but the first."""
    trainer = build_trainer(work)
    (low, high), size = work["query_tokens"], work["rollout_batch_size"]
    length, vocabulary = work["response_tokens"], work["config"]["vocab_size"]
    phases: dict[str, list[float]] = {"generate": [], "step": []}
    for _ in range(1 + iterations):
        lengths = [low + (high - low) * i // (size - 1) for i in range(size)]
        queries = [torch.randint(3, vocabulary - 1, (one,)) for one in lengths]
        begin = time.perf_counter()
        responses = trainer.generate(
            queries,
            batch_size=size,
            return_prompt=False,
            do_sample=True,
            top_k=0,
            top_p=1.0,
            pad_token_id=0,
            min_new_tokens=length,
            max_new_tokens=length,
        )
        middle = time.perf_counter()
        trainer.step(queries, list(responses), [torch.tensor(float(i % 3)) for i in range(size)])
        phases["generate"].append(middle - begin)
        phases["step"].append(time.perf_counter() - middle)
    return {name: seconds[1:] for name, seconds in phases.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workload", type=Path)
    parser.add_argument("--iterations", type=int, default=3)
    given = parser.parse_args()
    work = json.loads(given.workload.read_text(encoding="utf-8"))
    torch.manual_seed(0)
    seconds = {name: statistics.median(s) for name, s in measure(work, given.iterations).items()}
    speed = work["rollout_batch_size"] / sum(seconds.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    rounded = {name: round(value, 3) for name, value in seconds.items()}
    facts = {"workload": work["name"], "threads": torch.get_num_threads(), **rounded}
    print(json.dumps({**facts, "samples_per_second": round(speed, 4), "peak_rss_mb": peak}))


if __name__ == "__main__":
    main()
