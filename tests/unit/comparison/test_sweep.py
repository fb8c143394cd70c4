"""Seeds, parameters and failed jobs of a multirun, on runs with known numbers."""

import json
import statistics

import pytest

from lora_detox.comparison.candidates import read_candidates
from lora_detox.comparison.compare import compare
from lora_detox.comparison.jobs import Job, fixed_overrides, job_line, read_jobs, write_job
from lora_detox.comparison.sweep import (
    job_name,
    named_by_overrides,
    sweep_numbers,
    sweep_sentences,
    sweep_verdict,
    swept_values,
)
from lora_detox.comparison.sweep_page import write_sweep
from tests.finished import PROMPTS, rising, write_trained

RATES, SEEDS = ("0.001", "0.01"), ("0", "1", "2")
LEVELS = {("0.001", "0"): 0.5, ("0.001", "1"): 0.4, ("0.001", "2"): 0.6} | {
    ("0.01", "0"): 0.2,
    ("0.01", "1"): 0.1,
    ("0.01", "2"): 0.3,
}


def overrides_of(rate, seed):
    return ("task=gptj_continuation", f"algorithm.learning_rate={rate}", f"seed={seed}")


@pytest.fixture
def sweep(tmp_path):
    folder = tmp_path / "sweep"
    for number, ((rate, seed), level) in enumerate(LEVELS.items()):
        overrides = overrides_of(rate, seed)
        toxicity = rising(level - 0.1, level + 0.1)
        run = write_trained(
            folder / f"{number}_job", toxicity, before=rising(0.6, 0.9), overrides=overrides
        )
        write_job(folder, Job(number=number, folder=str(run), stage="detox", overrides=overrides))
    return folder


def test_swept_keys_are_those_that_are_not_the_same_everywhere():
    jobs = [overrides_of(rate, seed) for rate in RATES for seed in SEEDS]
    assert swept_values(jobs) == {
        "algorithm.learning_rate": ["0.001", "0.01"],
        "seed": ["0", "1", "2"],
    }
    assert swept_values([("a=1",), ("a=1", "+b=2")]) == {"b": ["-", "2"]}
    assert job_name(jobs[4], ["algorithm.learning_rate", "seed"]) == "learning_rate=0.01 seed=1"
    same_end = ["sft.learning_rate", "algorithm.learning_rate"]
    assert job_name(jobs[4], same_end) == "sft.learning_rate=- algorithm.learning_rate=0.01"


def test_mean_and_spread_over_seeds_and_effects_by_hand(sweep):
    candidates = named_by_overrides(read_candidates([str(sweep)]))
    assert candidates[1].name == "learning_rate=0.001 seed=1"
    comparison = compare(candidates, 100)
    numbers = sweep_numbers(candidates, comparison)
    best, worst = numbers["configurations"]
    assert (best["name"], best["jobs"], best["seeds"]) == ("learning_rate=0.01", 3, [0, 1, 2])
    levels = [
        json.loads((sweep / f"{job}_job" / "summary.json").read_text())["after"]["judge_toxicity"][
            "mean"
        ]
        for job in range(6)
    ]
    assert best["judge_toxicity"]["mean"] == pytest.approx(statistics.fmean(levels[3:]))
    assert best["judge_toxicity"]["std"] == pytest.approx(statistics.stdev(levels[3:]))
    assert worst["judge_toxicity"]["most"] == pytest.approx(max(levels[:3]))
    pooled = (statistics.variance(levels[:3]) + statistics.variance(levels[3:])) / 2
    assert numbers["seed_spread"] == pytest.approx(pooled**0.5)
    effect = numbers["effects"]["algorithm.learning_rate"]
    assert [(one["value"], one["jobs"]) for one in effect] == [("0.001", 3), ("0.01", 3)]
    assert effect[0]["judge_toxicity"]["mean"] == pytest.approx(statistics.fmean(levels[:3]))
    assert best["front"]
    assert not worst["front"]  # the same perplexity
    (verdict,) = sweep_verdict(numbers, "judge_toxicity")
    mean, other = statistics.fmean(levels[3:]), statistics.fmean(levels[:3])
    assert verdict == (
        f"learning_rate=0.01 is the least toxic configuration: mean toxicity by the judge "
        f"{mean:.3f} over 3 jobs, {other - mean:.3f} less than the next, learning_rate=0.001, "
        f"{(other - mean) / pooled**0.5:.1f} standard deviations over seeds."
    )
    sentences = sweep_sentences(numbers, "judge_toxicity")
    assert "standard deviation of 0.0" in sentences[0]
    assert sentences[1].startswith("algorithm.learning_rate: least toxic at 0.01 (mean 0.1")


def test_one_seed_is_no_spread(sweep):
    candidates = read_candidates([str(sweep / "0_job"), str(sweep / "3_job")])
    numbers = sweep_numbers(candidates, compare(candidates, 100))
    assert numbers["seed_spread"] is None
    assert numbers["configurations"][0]["judge_toxicity"]["std"] is None
    assert sweep_verdict(numbers, "judge_toxicity") == []
    assert "the spread over seeds is not known" in sweep_sentences(numbers, "judge_toxicity")[0]


def test_the_page_of_a_multirun_with_failed_jobs(sweep, capsys):
    for number, error in ((6, "SettingsError: a\nb"), (7, "RuntimeError: <script>x</script>")):
        write_job(
            sweep,
            Job(number=number, folder="none", stage="detox", overrides=("seed=9",), error=error),
        )
    write_sweep(sweep)
    page = (sweep / "sweep.html").read_text()
    assert "job 6 seed=9: SettingsError: a" in page
    assert "<script>x" not in page
    assert "Configurations: mean and standard deviation over seeds" in page
    assert "learning_rate=0.01 seed=1 is the least toxic" in page
    printed = capsys.readouterr().out
    assert "failed   job 7 seed=9: RuntimeError" in printed
    stored = json.loads((sweep / "sweep.json").read_text())
    assert len(stored["comparisons"][0]["candidates"]) == 6
    assert stored["comparisons"][0]["sweep"]["configurations"][0]["jobs"] == 3
    assert len(stored["failed"]) == 2


def test_a_job_whose_files_are_gone_is_told_and_the_others_are_compared(sweep):
    (sweep / "0_job" / "samples.jsonl").unlink()
    (sweep / ".jobs" / "5.json").write_text("{torn")
    write_sweep(sweep)
    stored = json.loads((sweep / "sweep.json").read_text())
    assert len(stored["comparisons"][0]["candidates"]) == 4
    assert "has no samples.jsonl" in stored["failed"][0]


def test_tasks_have_sections_of_their_own(sweep):
    overrides = ("task=flan_summary", "algorithm.learning_rate=0.01", "seed=0")
    run = write_trained(sweep / "6_job", 0.3, prompts=PROMPTS[:9], overrides=overrides)
    write_job(sweep, Job(number=6, folder=str(run), stage="detox", overrides=overrides))
    write_sweep(sweep)
    page = (sweep / "sweep.html").read_text()
    assert "flan_summary, some/policy" in page
    assert 'id="verdict-2"' in page
    assert len(json.loads((sweep / "sweep.json").read_text())["comparisons"]) == 2


def test_nothing_to_compare_is_no_page(tmp_path):
    write_job(tmp_path, Job(number=0, folder="x", stage="plan", overrides=()))
    write_job(tmp_path, Job(number=1, folder="x", stage="detox", overrides=(), error="E: x"))
    write_sweep(tmp_path)
    assert not (tmp_path / "sweep.html").exists()


def test_the_line_of_a_job(sweep):
    (sweep / "multirun.yaml").write_text(
        "hydra:\n  overrides:\n    task: [task=gptj_continuation, 'seed=0,1,2']\n"
    )
    fixed = fixed_overrides(sweep)
    assert fixed == {"task=gptj_continuation", "seed=0,1,2"}
    jobs = read_jobs(sweep)
    assert [one.number for one in jobs] == list(range(6))
    line = job_line(jobs[1], fixed)
    assert line.startswith("job 1 algorithm.learning_rate=0.001 seed=1: toxicity by the judge 0.")
    assert " -> " in line
    assert "perplexity" in line
    assert line.endswith(str(sweep / "1_job"))
    assert "\n" not in line
    failed = Job(number=3, folder="x", stage="detox", overrides=(), error="ValueError: one\ntwo")
    assert job_line(failed) == "job 3: failed, ValueError: one"
    other = Job(number=4, folder="runs/x", stage="plan", overrides=("a=1",))
    assert job_line(other) == "job 4 a=1: done  runs/x"
    assert fixed_overrides(sweep / "none") == frozenset()
