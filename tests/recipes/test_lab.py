"""The recipes' arithmetic and their queue: what is stopped goes on, what failed is listed."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from lora_detox.api import compose_settings
from lora_detox.run_lock import claimed
from recipes.headline.goals import TASKS
from recipes.lab import overrides, run_queue, store
from recipes.lab.goal_table import write_report
from recipes.lab.goals import Goal, measures_of
from recipes.lab.judged import Judged, Paired, change_of, paired_difference
from recipes.layers.verdict import verdict


def judged(judge, *, nll=2.0, tokens=10.0, distinct=0.9):
    judge = np.asarray(judge, dtype=float)
    ones = np.ones_like(judge)
    columns = {"judge": judge, "nll": nll * tokens * ones, "tokens": tokens * ones}
    return Judged(columns=columns, distinct_2=distinct)


def test_changes_are_relative_to_the_base_and_their_intervals_hold_them():
    rng = np.random.default_rng(1)
    level = rng.uniform(0.2, 0.6, 200)
    base = judged(level)
    seeds = [judged(level * share, nll=2.1, tokens=9.0) for share in (0.4, 0.5, 0.6)]
    judge = change_of(seeds, base, "judge")
    assert judge.mean == pytest.approx(-0.5)
    assert judge.low == pytest.approx(-0.6, abs=0.01)  # the seeds differ, the prompts do not
    assert judge.high == pytest.approx(-0.4, abs=0.01)
    perplexity = change_of(seeds, base, "perplexity")
    assert perplexity.mean == pytest.approx(np.exp(0.1) - 1)
    tokens = change_of(seeds, base, "tokens")
    assert (tokens.low, tokens.mean, tokens.high) == pytest.approx((-0.1, -0.1, -0.1))
    assert str(tokens) == "-10 % [-10, -10]"
    noisy = judged(rng.uniform(0.0, 0.5, 200))
    change = change_of([noisy], base, "judge")
    assert change.low < change.mean < change.high


def test_a_paired_difference_leaves_out_what_a_seed_does_to_both():
    level = np.random.default_rng(1).uniform(0.2, 0.6, 200)
    base = judged(level)
    shares = (0.2, 0.5, 0.8)
    seeds = [judged(level * share) for share in shares]
    lower = [judged(level * (share - 0.1)) for share in shares]
    pair = Paired(seeds=lower, others=seeds, base=base)
    change = paired_difference([pair], "judge")
    assert (change.low, change.mean, change.high) == pytest.approx((-0.1, -0.1, -0.1))
    opposite = replace(pair, seeds=lower[::-1])  # the best seed of one is the worst of the other
    unrelated = paired_difference([opposite], "judge")
    assert unrelated.mean == pytest.approx(-0.1)
    assert unrelated.high > 0.3
    higher = replace(pair, seeds=[judged(level * (share + 0.3)) for share in shares])
    both = paired_difference([pair, higher], "judge")
    assert (both.low, both.mean, both.high) == pytest.approx((0.1, 0.1, 0.1))
    more = paired_difference([opposite, opposite], "judge")
    assert more.high < unrelated.high  # two models say more than one


GOALS = (
    Goal(data="in_distribution", label="RTP", measure="judge", most=-0.5),
    Goal(data="in_distribution", label="RTP", measure="perplexity", most=0.05),
)


def in_a_thread(function, *args, **kwargs):
    """The result of a call that holds none of this thread's locks."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(function, *args, **kwargs).result()


def write_run(folder, judge, *, sets, trained):
    """The files of a finished run that the tables read."""
    rows = [
        {
            "set": name,
            "prompt": "What next",
            "response": "two words 42",
            "judge_toxicity": value,
            "reference_nll": 10 * value,
            "response_tokens": 4,
        }
        for name in sets
        for value in judge
    ]
    numbers = {name: {"distinct_2": 0.9, "ref_kl": 1.25} for name in sets}
    (folder / "evaluate").mkdir(parents=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "evaluate" / "samples.jsonl").write_text(lines)
    summary = {"models": [{"sets": numbers}]}
    (folder / "evaluate" / "summary.json").write_text(json.dumps(summary))
    if trained:
        (folder / "train").mkdir()
        summary = {"seconds": {"total": 61.5}, "iterations": 40}
        (folder / "train" / "summary.json").write_text(json.dumps(summary))


def test_stored_results_give_the_same_table_as_the_runs(tmp_path, capsys):
    sizes, sets = {"iterations": 40}, ["in_distribution"]
    first, second = tmp_path / "first", tmp_path / "second"
    level = np.linspace(0.1, 0.9, 40)
    write_run(first / "base", level, sets=sets, trained=False)
    for seed, share in enumerate((0.4, 0.6)):
        write_run(first / f"seed{seed}", level * share, sets=sets, trained=True)
    write_report(first, GOALS, sizes)
    said = capsys.readouterr().out
    assert "| judge | 0.5 | -60.0 % | -40.0 % | -50.0 % [" in said
    assert "Inside every bound: 1 of 2 (seed0)." in said
    assert "seed1: iteration 40 of 40, 1.0 min, KL 1.25." in said
    second.mkdir()
    (second / "results.json").write_text((first / "results.json").read_text())
    write_report(second, GOALS, sizes)
    assert capsys.readouterr().out == said
    assert (second / "picture.png").stat().st_size > 10_000
    write_run(second / "seed2", level * 0.2, sets=sets, trained=True)
    measures = measures_of(GOALS)
    assert list(store.collect(second, measures, sizes)) == ["base", "seed0", "seed1", "seed2"]
    with pytest.raises(store.OtherSizesError, match="iterations"):
        store.stored_runs(second, {"iterations": 80})


def test_a_run_converges_only_inside_every_bound():
    level = np.linspace(0.1, 0.9, 50)
    base = judged(level)
    good = verdict(base, judged(level * 0.5, nll=2.1, tokens=9.5, distinct=0.89))
    assert good.broken == ()
    assert good.judge == pytest.approx(-0.5)
    for broken, one in {
        "toxicity": judged(level * 0.8),
        "perplexity": judged(level * 0.5, nll=2.3),
        "length": judged(level * 0.5, tokens=7.0),
        "distinct-2": judged(level * 0.5, distinct=0.8),
    }.items():
        assert verdict(base, one).broken == (broken,)
    rng = np.random.default_rng(0)  # lower by a third, and yet it may be chance
    few = judged(rng.uniform(0, 1, 4))
    assert "toxicity" in verdict(few, judged([0.0, 1.0, 0.2, 0.1])).broken


def test_the_queue_skips_what_is_done_and_lists_what_fails(tmp_path, capsys):
    def run(name, code):
        folder = tmp_path / name
        done = folder / "done"
        program = f"import pathlib, sys\nprint('said')\n{code}"
        step = run_queue.Step(command=[sys.executable, "-c", program], done=done)
        return run_queue.Run(name=name, folder=folder, steps=[step])

    count = tmp_path / "count"
    touch = f"pathlib.Path({str(tmp_path)!r}, 'good', 'done').touch()\n"
    good = run("good", touch + f"open({str(count)!r}, 'a').write('x')")
    bad = run("bad", f"open({str(count)!r}, 'a').write('y')\nsys.exit('no luck')")
    for _ in range(2):
        assert run_queue.execute_all([good, bad], jobs=2, retry=False) == 1
    assert sorted(count.read_text()) == ["x", "y"]
    failed = json.loads((tmp_path / "bad" / "failed.json").read_text())
    assert failed == {"code": 1, "message": "no luck"}
    said = capsys.readouterr().out
    assert said.count("s: no luck\n") == 2
    assert f"1 of 2 failed, the first in {bad.folder}: log.txt there says more" in said
    assert run_queue.execute_all([good], jobs=1, retry=True) == 0
    run_queue.execute_all([good, bad], jobs=1, retry=True)
    assert sorted(count.read_text()) == ["x", "y", "y"]
    stopped = run("stopped", "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)")
    assert run_queue.execute(stopped, retry=False) == "stopped"
    assert not (tmp_path / "stopped" / "failed.json").exists()  # to be continued


def test_every_run_of_the_lab_composes(shared):
    folder = str(shared)
    lab = overrides.continuation(folder)
    settings = compose_settings([*lab, *overrides.training(80, 16, 2)])
    assert settings.algorithm.iterations * settings.algorithm.rollout_batch_size == 1280
    base = overrides.evaluated(f"{folder}/{overrides.BASE}", None, "base")
    judging = [*lab, "stage=evaluate", *overrides.three_sets(folder), base]
    sets = compose_settings(judging).evaluation.sets
    assert set(sets) == {"toxic", "benign"}
    assert sets["toxic"].min_toxicity == 0.5
    headline = TASKS["continuation"].judging(folder)
    assert list(compose_settings([*lab, "stage=evaluate", *headline, base]).evaluation.sets) == [
        "toxic", "benign", "wikitext",
    ]  # fmt: skip


def test_a_run_that_ended_half_way_begins_again_where_it_cannot_go_on(tmp_path):
    """A stage refuses a folder in which another run lies; one with a checkpoint goes on in it."""
    program = (
        "import pathlib, sys; folder = pathlib.Path(sys.argv[1].removeprefix('hydra.run.dir='))\n"
        "kept = 'resume=true' in sys.argv\n"
        "if (folder / 'config.yaml').exists() and not kept: sys.exit('holds another run')\n"
        "folder.mkdir(parents=True, exist_ok=True); (folder / 'config.yaml').touch()\n"
        "if not (folder / '..' / 'mended').exists(): sys.exit('broken')\n"
        "(folder / 'summary.json').touch()"
    )

    folder = tmp_path / "train"

    def run():
        command = [sys.executable, "-c", program, f"hydra.run.dir={folder}"]
        command += run_queue.going_on(folder)
        step = run_queue.Step(command=command, done=folder / "summary.json")
        return run_queue.Run(name="one", folder=tmp_path, steps=[step])

    assert run_queue.execute(run(), retry=False) == "failed"
    (tmp_path / "mended").touch()
    assert run_queue.execute(run(), retry=False) == "failed"  # nobody asked for it
    checkpoint = folder / "checkpoints" / "checkpoint-7"  # as Transformers names them
    checkpoint.mkdir(parents=True)
    assert run_queue.execute(run(), retry=True) == "done"
    assert checkpoint.is_dir()
    (folder / "summary.json").unlink()
    shutil.rmtree(folder / "checkpoints")
    (folder / "report.html").touch()
    (folder / "notes.txt").touch()
    assert run_queue.execute(run(), retry=False) == "done"  # a signal had ended it
    assert not (folder / "report.html").exists()
    assert (folder / "notes.txt").exists()
    (folder / "summary.json").unlink()
    with claimed(folder, resume=True):
        assert in_a_thread(run_queue.execute, run(), retry=True) == "failed"
    assert "is in use by process" in (tmp_path / "failed.json").read_text()
    assert (folder / "config.yaml").exists()
