"""Write golden.json: numbers of TRL 0.11.4 for the models and batches of recipe.py.

    bash shared/peers/setup_trl_classic.sh VENV
    VENV/bin/python tests/golden/make_golden.py tests/golden/golden.json

Runs in the peer's environment only. Every [B, T-1] table is kept where the mask is 1 and 0
elsewhere, as TRL computes numbers there that mean nothing.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import recipe
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from trl import (
    AutoModelForCausalLMWithValueHead,
    AutoModelForSeq2SeqLMWithValueHead,
    PPOConfig,
    PPOTrainer,
    __version__,
)

WRAPPERS = {"gpt2": AutoModelForCausalLMWithValueHead, "t5": AutoModelForSeq2SeqLMWithValueHead}
STATS = (
    "objective/kl", "objective/kl_coef", "objective/entropy", "ppo/mean_non_score_reward",
    "ppo/mean_scores", "ppo/std_scores", "ppo/loss/policy", "ppo/loss/value", "ppo/loss/total",
    "ppo/policy/entropy", "ppo/policy/approxkl", "ppo/policy/policykl", "ppo/policy/clipfrac",
    "ppo/policy/advantages_mean", "ppo/returns/mean", "ppo/returns/var", "ppo/val/vpred",
    "ppo/val/error", "ppo/val/clipfrac", "ppo/val/mean", "ppo/val/var", "ppo/val/var_explained",
    "ppo/learning_rate", "tokens/queries_len_mean", "tokens/queries_len_std",
    "tokens/responses_len_mean", "tokens/responses_len_std",
)  # fmt: skip


def tokenizer():
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {f"w{i}": i for i in range(3, recipe.VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")),
        pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
    )  # fmt: skip


def trainer(family, lora=False, **changes):
    base = recipe.build(family)
    model = WRAPPERS[family].from_pretrained(recipe.adapt(base) if lora else base)
    recipe.fill(model.v_head, "head")
    reference = WRAPPERS[family].from_pretrained(recipe.build(family))
    recipe.nudge(reference.pretrained_model, "reference")
    if lora:
        reference = None  # the policy without its adapter
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=recipe.SGD)
    config = PPOConfig(**(recipe.SETTINGS | {"seed": recipe.SEED} | changes))
    return PPOTrainer(config, model, reference, tokenizer(), optimizer=optimizer)


def table(tensor, mask):
    return (tensor.float() * mask).tolist()


def rewards_and_loss(t, scores, logprobs, ref_logprobs, values, mask):
    """Rewards, advantages, returns and a loss at changed logprobs and values, under a mask."""
    rewards, _, kls = t.compute_rewards(scores, logprobs, ref_logprobs, mask)
    masked, advantages, returns = t.compute_advantages(values, rewards, mask)
    if logprobs.dim() == 3:
        return {"kls": table(kls, mask), "rewards": table(rewards, mask),
                "advantages": table(advantages, mask), "returns": table(returns, mask)}  # fmt: skip
    drift = 0.3 * torch.sin(torch.arange(mask.numel()).reshape(mask.shape).float())
    logits = torch.sin(torch.arange(mask.numel() * 7).float()).reshape(*mask.shape, 7)
    policy, value, stats = t.loss(
        logprobs, masked, logits, masked + drift, logprobs + drift, mask, advantages, returns
    )
    kept = ("policy/entropy", "policy/approxkl", "policy/policykl", "policy/clipfrac",
            "val/clipfrac", "val/error", "returns/var", "val/var")  # fmt: skip
    return {
        "kls": table(kls, mask), "rewards": table(rewards, mask),
        "advantages": table(advantages, mask), "returns": table(returns, mask),
        "loss": [float(policy), float(value)], "stats": {k: float(stats[k]) for k in kept},
    }  # fmt: skip


def read(family):
    """Numbers of policy and reference, and rewards and loss under each penalty."""
    result = {}
    queries, responses, scores = recipe.batch(family)
    for penalty in recipe.PENALTIES:
        t = trainer(family, kl_penalty=penalty)
        full = penalty == "full"
        with torch.no_grad():
            inputs = t.prepare_model_inputs(queries, responses)
            logprobs, logits, values, mask = t.batched_forward_pass(
                t.model, queries, responses, inputs, return_logits=full
            )
            ref_logprobs, ref_logits, _, _ = t.batched_forward_pass(
                t.ref_model, queries, responses, inputs, return_logits=full
            )
        all_mask = mask.clone()
        if family == "t5":  # every token after the start token, the first included
            all_mask = inputs["decoder_attention_mask"][:, 1:].clone()
        if penalty == "kl":
            result |= {"mask": mask.tolist(), "logprobs": table(logprobs, all_mask),
                       "ref_logprobs": table(ref_logprobs, all_mask),
                       "values": table(values, all_mask)}  # fmt: skip
        if full:
            logprobs, ref_logprobs = logits.log_softmax(-1), ref_logits.log_softmax(-1)
        score = torch.stack(scores)
        result[penalty] = rewards_and_loss(t, score, logprobs, ref_logprobs, values, mask)
        result[f"{penalty}/all"] = rewards_and_loss(
            t, score, logprobs, ref_logprobs, values, all_mask
        )
    return result


def learn(family, lengths=(), masks=None, **changes):
    """Statistics and the change of all weights over two steps."""
    t = trainer(family, **changes)
    queries, responses, scores = recipe.batch(family, *lengths)
    np.random.seed(recipe.SEED)  # noqa: NPY002 - TRL draws from it
    result = []
    for _ in range(2):
        before = recipe.whole(t.model)
        stats = t.step(queries, responses, scores, masks)
        change = recipe.digest(before, recipe.whole(t.model))
        result.append({"stats": {k: float(stats[k]) for k in STATS}, "change": change,
                       "kl_coef": t.kl_ctl.value})  # fmt: skip
    return result


def main():
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    golden = {"made_with": {"trl": __version__, "torch": torch.__version__}}
    for family in recipe.FAMILIES:
        golden[family] = {"read": read(family), "learn": learn(family)}
        golden[family]["accumulated"] = learn(
            family, gradient_accumulation_steps=2, mini_batch_size=1, adap_kl_ctrl=False
        )
        golden[family]["lora"] = learn(family, lora=True)
        golden[family]["early"] = learn(family, early_stopping=True, target_kl=1e-7)
        golden[family]["clipped"] = learn(family, score_clip=0.7, horizon=50.0, target=0.1)
    equal = ((5, 5, 5, 5), (4, 4, 4, 4))  # no padding anywhere
    golden["gpt2"]["whitened"] = learn("gpt2", lengths=equal, whiten_rewards=True)
    masks = [torch.tensor([1, 0, 1, 1]), torch.tensor([0, 1, 1]),
             torch.tensor([1, 1, 0, 0, 1, 0]), torch.tensor([1, 1, 1, 1, 1])]  # fmt: skip
    golden["gpt2"]["masked"] = learn("gpt2", masks=masks)

    def rounded(x):
        if isinstance(x, dict):
            return {k: rounded(v) for k, v in x.items()}
        if isinstance(x, list):
            return [rounded(v) for v in x]
        return float(f"{x:.7g}") if isinstance(x, float) else x

    Path(sys.argv[1]).write_text(json.dumps(rounded(golden)) + "\n")


if __name__ == "__main__":
    main()
