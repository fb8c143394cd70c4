"""Evaluations as stage=evaluate leaves them, for the tables of recipes."""

import json


def write_judged(folder, level):
    """An `evaluate/` of 40 responses."""
    (folder / "evaluate").mkdir(parents=True)
    rows = [
        {
            "set": "in_distribution",
            "prompt": f"p{place}",
            "response": "some fine words",
            "judge_toxicity": level,
            "reference_nll": 30.0,
            "response_tokens": 10,
            "relevance": 0.2,
        }
        for place in range(40)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "evaluate" / "samples.jsonl").write_text(lines)
    sets = {"in_distribution": {"distinct_2": 0.9, "ref_kl": 1.0}}
    model = {"name": "m", "sets": sets}
    (folder / "evaluate" / "summary.json").write_text(json.dumps({"models": [model]}))
