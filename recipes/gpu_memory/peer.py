# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "accelerate==0.34.2",
#   "bitsandbytes",
#   "peft==0.13.2",
#   "torch",
#   "transformers==4.45.2",
#   "trl==0.11.4",
# ]
# ///
"""One PPO iteration of TRL 0.11.4 on the weights of run.py: run by the peer's own interpreter.

    VENV/bin/python recipes/gpu_memory/peer.py WEIGHTS/gpt_j_6b [--int8] [--device cuda]

LoRA of rank 16 on query and value, bf16, 16 prompts in minibatches of 4, 4 PPO epochs, gradient
checkpointing, as run.py has it on our side. The score is a constant pattern, so that no reward
model is counted. Prints one JSON line: seconds of each phase of the second iteration (the first
warms up), samples per second, and the peak of PyTorch's allocator over both.
"""

import argparse
import json
import resource
import time
import warnings
from typing import Any

warnings.filterwarnings("ignore")

import torch  # noqa: E402
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BitsAndBytesConfig,
    PreTrainedTokenizerFast,
)
from trl import (  # noqa: E402
    AutoModelForCausalLMWithValueHead,
    AutoModelForSeq2SeqLMWithValueHead,
    PPOConfig,
    PPOTrainer,
)

SIZE = 16
LENGTHS = {"short": (10, 20, 25), "long": (140, 260, 60)}
"""Tokens of the prompts, from and to, and of each response."""


def policy(place: str, *, int8: bool, device: str) -> Any:
    """The weights with a fresh LoRA and TRL's value head."""
    config = AutoConfig.from_pretrained(place)
    seq2seq = config.is_encoder_decoder
    auto = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    how: dict[str, Any] = {} if device == "cpu" else {"device_map": {"": device}}
    if int8:
        how["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    base = auto.from_pretrained(place, torch_dtype=torch.bfloat16, **how)
    if int8:
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=True)
    else:
        base.gradient_checkpointing_enable()
        base.enable_input_require_grads()
    lora = LoraConfig(
        r=16,
        lora_alpha=32,
        task_type="SEQ_2_SEQ_LM" if seq2seq else "CAUSAL_LM",
        target_modules=["q", "v"] if seq2seq else ["q_proj", "v_proj"],
    )
    wrapper = AutoModelForSeq2SeqLMWithValueHead if seq2seq else AutoModelForCausalLMWithValueHead
    model = wrapper.from_pretrained(get_peft_model(base, lora))
    model.is_peft_model = True
    return model


def iteration(trainer: Any, work: tuple[int, int, int], vocabulary: int) -> dict[str, float]:
    """Seconds of one iteration by phase."""
    low, high, length = work
    sizes = [low + (high - low) * i // (SIZE - 1) for i in range(SIZE)]
    queries = [torch.randint(3, vocabulary - 1, (size,)) for size in sizes]
    start = time.perf_counter()
    answers = trainer.generate(
        queries,
        batch_size=SIZE,
        return_prompt=False,
        do_sample=True,
        top_k=0,
        top_p=1.0,
        pad_token_id=0,
        min_new_tokens=length,
        max_new_tokens=length,
    )
    written = time.perf_counter()
    trainer.step(queries, list(answers), [torch.tensor(float(i % 3)) for i in range(SIZE)])
    return {"generate": written - start, "step": time.perf_counter() - written}


def main() -> None:
    """Two iterations, one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    torch.manual_seed(0)
    model = policy(given.weights, int8=given.int8, device=given.device)
    config = model.pretrained_model.config
    tokenizer = PreTrainedTokenizerFast.from_pretrained(given.weights)
    trainer = PPOTrainer(
        PPOConfig(batch_size=SIZE, mini_batch_size=4, ppo_epochs=4, learning_rate=1e-4),
        model,
        ref_model=None,
        tokenizer=tokenizer,
    )
    work = LENGTHS["long" if config.is_encoder_decoder else "short"]
    phases = [iteration(trainer, work, config.vocab_size) for _ in range(2)][-1]
    on_gpu = given.device != "cpu"
    peak = (
        torch.cuda.max_memory_allocated()
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    result = {"peer": "trl-0.11.4", "int8": given.int8, "seconds": phases, "peak_bytes": peak}
    print(json.dumps({**result, "samples_per_second": SIZE / sum(phases.values())}))


if __name__ == "__main__":
    main()
