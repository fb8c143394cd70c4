"""A plausible run for the tests of pages: no model, the same numbers every time."""

import math
import random


def fake_samples(count=40):
    rng = random.Random(0)
    rows = []
    for number in range(count):
        before, change = rng.random() * 0.7, rng.gauss(-0.15, 0.15)
        rows.append(
            {
                "prompt": f"Summarize the following conversation.\n#Person1#: Number {number}? "
                "#Person2#: You never listen, and I am tired of saying it again and again.",
                "references": ["#Person2# is tired of repeating things."],
                "before": "#Person2# says #Person1# is a useless fool who never listens.",
                "after": "#Person2# is tired of saying the same thing again.",
                "toxicity_before": before,
                "toxicity_after": min(1.0, max(0.0, before + change)),
                "judge_toxicity_before": before * 0.8,
                "judge_toxicity_after": max(0.0, before * 0.8 + change / 2),
            }
        )
    return rows


def _evaluation(progress):
    return {
        "toxicity": {"mean": 0.31 - 0.17 * progress, "std": 0.2, "n": 300},
        "judge_toxicity": {"mean": 0.27 - 0.08 * progress, "std": 0.2, "n": 300},
        "rouge1": 0.383 + 0.004 * progress,
        "rougeL": 0.294 - 0.003 * progress,
        "perplexity": 7.1 + 1.3 * progress,
        "distinct_2": 0.61 - 0.02 * progress,
        "response_tokens": 24.6 - 1.5 * progress,
        "empty": 0.0,
    }


def fake_history(iterations=40):
    rng = random.Random(1)
    rows = []
    for iteration in range(1, iterations + 1):
        progress = 1 - math.exp(-iteration / 15)
        rows.append(
            {
                "iteration": iteration,
                "score": -1 + 2 * progress + rng.gauss(0, 0.15),
                "toxicity": 0.32 - 0.18 * progress + rng.gauss(0, 0.02),
                "ref_kl": 3 * progress + rng.gauss(0, 0.1),
                "ref_kl_k3": 3.2 * progress,
                "kl_coef": 0.2 * math.exp(0.01 * iteration),
                "policy_loss": rng.gauss(-0.02, 0.005),
                "value_loss": 0.8 * math.exp(-iteration / 10) + 0.1,
                "entropy": 2.1 - 0.2 * progress,
                "approx_kl": abs(rng.gauss(0.01, 0.003)),
                "clip_fraction": abs(rng.gauss(0.08, 0.02)),
                "ratio": rng.gauss(1, 0.003),
                "response_tokens": 24 - 2 * progress + rng.gauss(0, 0.5),
                "seconds_generate": 3.1,
            }
        )
        if iteration % 10 == 0 or iteration == 1:
            rows[-1]["evaluation"] = _evaluation(progress)
    return rows


def fake_summary():
    before, after = _evaluation(0), _evaluation(1)
    widths = {"toxicity": 0.03, "judge_toxicity": 0.025, "rouge1": 0.008, "rougeL": 0.007}
    change = {}
    for key, value in before.items():
        first, last = (
            (value["mean"], after[key]["mean"]) if isinstance(value, dict) else (value, after[key])
        )
        width = widths.get(key, abs(last - first) / 3)
        change[key] = {"mean": last - first, "ci95": [last - first - width, last - first + width]}
    return {
        "schema": 1,
        "task": "flan_summary",
        "policy": "google/flan-t5-base",
        "algorithm": "ppo",
        "seed": 0,
        "before": before,
        "after": after,
        "change": change,
        "ref_kl": 2.93,
        "iterations": 40,
        "stopped": "iterations",
        "parameters": {"trainable": 3538944, "total": 251116800, "base_unchanged": True},
        "seconds": {
            "total": 812.4,
            "generate": 390.2,
            "score": 61.0,
            "update": 300.9,
            "evaluate": 60,
        },
        "peak_memory_bytes": 3 * 2**30,
        "device": "cpu",
        "versions": {"torch": "2.13.0", "transformers": "5.2.0", "peft": "0.19.0"},
        "scorers": {
            "reward": "facebook/roberta-hate-speech-dynabench-r4-target@1a2b3c4",
            "judge": "s-nlp/roberta_toxicity_classifier@5d6e7f8",
        },
    }
