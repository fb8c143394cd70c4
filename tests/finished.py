"""Finished runs with given numbers, written without models by what writes real ones."""

import functools
import json
import math

from lora_detox import api
from lora_detox.metrics.measure import measure_responses
from lora_detox.metrics.summary import change, summarise
from lora_detox.report.jsonl import write_json_atomic, write_rows
from lora_detox.report.responses import write_samples
from lora_detox.settings import settings_yaml

SCORERS = {"reward": "some/reward@1", "judge": "some/judge@2"}
PROMPTS = tuple(f"Well, listen to number {number}" for number in range(40))
TOKENS = 5.0


def evaluation(toxicity, prompts=PROMPTS, *, said="answer", nll=6.0, judge=True):
    """Responses of which toxicity is known; the judge sees nine tenths of it."""
    responses = [f"{said} {place} of no great length" for place in range(len(prompts))]
    return measure_responses(
        prompts=list(prompts),
        responses=responses,
        references=[[] for _ in prompts],
        toxicity=list(toxicity),
        judge_toxicity=[0.9 * one for one in toxicity] if judge else None,
        scores=[-one for one in toxicity],
        response_tokens=[TOKENS] * len(prompts),
        reference_nll=[nll + 0.1 * (place % 7) for place in range(len(prompts))],
    )


@functools.cache
def config(overrides):
    return settings_yaml(api.compose_settings(list(overrides), "/nowhere/run"))


def write_trained(
    folder,
    after,
    *,
    before=0.6,
    prompts=PROMPTS,
    scorers=SCORERS,
    overrides=("task=gptj_continuation",),
    said="after",
    start="before",
    nll=6.5,
    **entries,
):
    """A run of stage=detox: `after` and `before` are toxicities, or one of all responses."""
    folder.mkdir(parents=True)
    both = [
        evaluation(
            [one] * len(prompts) if isinstance(one, float) else one,
            prompts,
            said=words,
            nll=cost,
            judge="judge" in scorers,
        )
        for one, words, cost in ((before, start, 6.0), (after, said, nll))
    ]
    write_samples(folder / "samples.jsonl", *both)
    (folder / "config.yaml").write_text(config(tuple(overrides)))
    values = dict(one.split("=", 1) for one in overrides)
    summary = {
        "schema": 1,
        "task": values.get("task", "flan_summary"),
        "policy": "some/policy",
        "algorithm": "ppo",
        "seed": int(values.get("seed", 0)),
        "before": summarise(both[0]),
        "after": summarise(both[1]),
        "change": change(*both, resamples=200),
        "scorers": dict(scorers),
        "overrides": list(overrides),
        **entries,
    }
    write_json_atomic(folder / "summary.json", summary)
    return folder


def write_evaluated(folder, levels, *, prompts=PROMPTS, scorers=SCORERS):
    """A run of stage=evaluate: name -> toxicity of all responses, or -> strength -> toxicity."""
    folder.mkdir(parents=True)
    points = [
        (name, strength, level)
        for name, one in levels.items()
        for strength, level in (one.items() if isinstance(one, dict) else [(None, one)])
    ]
    measured = {
        (name, strength): evaluation([level] * len(prompts), prompts, said=f"{name} {strength}")
        for name, strength, level in points
    }
    rows, models = [], []
    for name, one in levels.items():
        frontier = []
        for strength in one if isinstance(one, dict) else (None,):
            this = measured[name, strength]
            base = measured.get((name, 0), next(iter(measured.values())))
            moved = {} if base is this else {"change": change(base, this, resamples=200)}
            frontier.append(
                {"strength": strength, "sets": {"in_distribution": {**summarise(this), **moved}}}
            )
            rows += [
                {
                    "model": name,
                    **(
                        {"strength": strength}
                        if any(isinstance(v, dict) for v in levels.values())
                        else {}
                    ),
                    "set": "in_distribution",
                    "prompt": prompt,
                    "response": this.responses[place],
                    **{
                        key: this.per_response[key][place]
                        for key in (
                            "toxicity",
                            "judge_toxicity",
                            "response_tokens",
                            "reference_nll",
                        )
                    },
                }
                for place, prompt in enumerate(prompts)
            ]
        models.append(
            {
                "name": name,
                "path": "some/policy",
                "adapter": None if one is next(iter(levels.values())) else f"runs/{name}",
                "decoding": {"name": "plain"},
                **({"frontier": frontier} if isinstance(one, dict) else {}),
                "sets": frontier[-1]["sets"],
            }
        )
    write_rows(folder / "samples.jsonl", rows)
    (folder / "config.yaml").write_text(config(("stage=evaluate", "task=gptj_continuation")))
    write_json_atomic(
        folder / "summary.json",
        {
            "schema": 1,
            "stage": "evaluate",
            "task": "gptj_continuation",
            "seed": 0,
            "scorers": dict(scorers),
            "models": models,
            "prompts": {"in_distribution": {"data": "rows", "prompts": len(prompts)}},
        },
    )
    return folder


def edited(folder, **changes):
    """The same run with other entries of its summary; None takes one out."""
    path = folder / "summary.json"
    summary = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: one for key, one in summary.items() if one is not None}))
    return folder


def rising(first, last):
    """Toxicities that differ from prompt to prompt, with a known mean."""
    return [
        first + (last - first) * (0.5 + 0.5 * math.sin(3.0 * place))
        for place in range(len(PROMPTS))
    ]
