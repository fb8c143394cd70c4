# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""How long a response takes in each way of writing: python -m recipes.method_frontiers.timing.

    .venv/bin/python -m recipes.method_frontiers.timing [--model smollm2] [--rounds 2]
        [--prompts 64] [--threads 1] [--out DIR] [--models DIR] [--shared DIR]

The start, an adapter and every decoding answer the same prompts in turn, on a machine that should
do nothing else; the runs themselves are timed beside other work. `latency.json` beside the results
holds each round, and the table of recipes.method_frontiers.run reads it.
"""

import argparse
import json
import shutil
import sys
from collections import defaultdict
from dataclasses import replace

from lora_detox.metrics import names
from lora_detox.report.jsonl import write_text_atomic
from recipes.lab.real import with_classifiers
from recipes.lab.run_queue import Run, execute_all
from recipes.method_frontiers.curves import BASE
from recipes.method_frontiers.latency import LATENCY, TIMED_RUN
from recipes.method_frontiers.methods import DECODED, NEGATED_LORA
from recipes.method_frontiers.run import Queue, command_line, parsed

EVERY_SETTING = ("best_of_n",)
"""Ways whose time depends on the setting; of the others one is timed."""


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line; `words` in its place."""
    parser = command_line(__doc__ or "")
    parser.set_defaults(prompts=64, threads=1)
    parser.add_argument("--rounds", type=int, default=2)
    return parsed(parser, words)


def runs_of(queue: Queue) -> dict[str, Run]:
    """Way of writing -> its evaluations."""
    ways = {BASE: queue.base(), "adapter": queue.adapter(TIMED_RUN)}
    for name, knob in DECODED.items():
        one = knob.values[min(1, len(knob.values) - 1)]
        timed = knob if name in EVERY_SETTING else replace(knob, values=(one,))
        ways[name] = queue.decoded(name, timed)
    return ways


def main() -> int:
    """Time every way in turn, as often as there are rounds."""
    given = arguments()
    models = with_classifiers(given.models, given.shared)
    for made in (TIMED_RUN, f"{NEGATED_LORA}/seed0"):
        if not (given.out / made / "train" / "adapter").is_dir():
            sys.exit(f"no adapter of {made} in {given.out}; first run recipes.method_frontiers.run")
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    device = ""
    for number in range(given.rounds):
        folder = given.out / "timing" / f"round{number}"
        shutil.rmtree(folder, ignore_errors=True)
        here = argparse.Namespace(**{**vars(given), "out": folder})
        ways = runs_of(Queue(here, models, made=given.out))
        if status := execute_all(list(ways.values()), jobs=1, retry=True):
            return status
        for way, run in ways.items():
            for step in run.steps:
                summary = json.loads(step.done.read_text(encoding="utf-8"))
                knob = step.done.parent.parent.name if way in DECODED else f"{way != BASE:d}"
                numbers = summary["models"][0]["sets"]["in_distribution"]
                milliseconds = round(1000 * numbers[names.SECONDS_PER_RESPONSE], 1)
                times[way][knob].append(milliseconds)
                device = summary["device"]
    content = {"device": device, "prompts": given.prompts, "milliseconds": times}
    write_text_atomic(given.out / LATENCY, json.dumps(content, indent=1) + "\n")
    for way, knobs in times.items():
        for knob, rounds in knobs.items():
            print(f"{way} {knob}: {', '.join(f'{one:.0f}' for one in rounds)} ms a response")
    return 0


if __name__ == "__main__":
    sys.exit(main())
