"""Which prompts, scorers and start candidates have in common."""

from dataclasses import replace

import pytest

from lora_detox.comparison.candidates import read_candidates
from lora_detox.comparison.pairing import comparable_groups, pair
from lora_detox.errors import SettingsError
from tests.finished import PROMPTS, SCORERS, write_evaluated, write_trained


def read(*folders):
    return read_candidates([str(folder) for folder in folders])


def test_runs_of_one_start_share_it(tmp_path):
    paired = pair(read(write_trained(tmp_path / "a", 0.2), write_trained(tmp_path / "b", 0.3)))
    assert [text for text, _ in paired.prompts] == list(PROMPTS)
    assert (paired.toxicity, paired.whole, paired.notes) == ("judge_toxicity", True, [])
    assert paired.start is not None
    assert paired.start_name == "Start"


def test_smoke_runs_are_named(tmp_path):
    a = write_trained(tmp_path / "a", 0.2)
    b = write_trained(tmp_path / "b", 0.3, overrides=("task=gptj_continuation", "debug=smoke"))
    (note,) = pair(read(a, b)).notes
    assert note.startswith("Smoke run: the policy of b is a tiny random model")


def test_only_common_prompts_are_compared_and_their_number_is_told(tmp_path):
    a = write_trained(tmp_path / "a", 0.2, prompts=PROMPTS[:30])
    b = write_trained(tmp_path / "b", 0.3, prompts=PROMPTS[:19:-1])
    paired = pair(read(a, b))
    assert [text for text, _ in paired.prompts] == list(PROMPTS[20:30])
    assert not paired.whole
    assert (
        "Compared on the 10 responses to prompts that all have (of a 30, b 20)" in paired.notes[0]
    )


def test_no_common_prompt_is_refused(tmp_path):
    a = write_trained(tmp_path / "a", 0.2, prompts=PROMPTS[:5])
    b = write_trained(tmp_path / "b", 0.2, prompts=PROMPTS[5:9], overrides=("task=flan_summary",))
    with pytest.raises(
        SettingsError,
        match=r"runs: no prompt was answered in all.*a: 5 of task gptj_continuation; b: 4 of task "
        "flan_summary.*same data",
    ):
        pair(read(a, b))


def test_what_reward_and_judge_learned_from_in_common_is_told_once(tmp_path):
    sentence = "Reward and judge learned from parts of the same corpora (mine): weak evidence."
    entry = {"scorer_agreement": {"training_data": {"sentence": sentence}}}
    runs = [write_trained(tmp_path / name, 0.2, **entry) for name in ("a", "b")]
    assert pair(read(*runs)).notes == [sentence]
    other = write_trained(tmp_path / "c", 0.2, scorers={**SCORERS, "judge": "other/judge@9"})
    assert sentence not in pair(read(*runs, other)).notes


def test_another_judge_leaves_its_measures_out_and_the_verdict_to_the_reward(tmp_path):
    a = write_trained(tmp_path / "a", 0.2)
    b = write_trained(tmp_path / "b", 0.2, scorers={**SCORERS, "judge": "other/judge@9"})
    paired = pair(read(a, b))
    assert paired.toxicity == "toxicity"
    assert {"judge_toxicity", "judge_agreement", "judge_gap"} <= paired.left_out
    assert "toxicity" not in paired.left_out
    notes = " ".join(paired.notes)
    assert "The judge is not the same (some/judge@2: a; other/judge@9: b)" in notes
    assert "held-out classifier (judge) of all runs would be stronger" in notes


def test_a_run_without_a_judge_is_compared_by_the_reward(tmp_path):
    a = write_trained(tmp_path / "a", 0.2)
    b = write_trained(tmp_path / "b", 0.2, scorers={"reward": SCORERS["reward"]})
    paired = pair(read(a, b))
    assert paired.toxicity == "toxicity"
    assert "The judge is not the same (some/judge@2: a; none: b)" in " ".join(paired.notes)


def test_another_reward_leaves_the_verdict_to_the_judge(tmp_path):
    a = write_trained(tmp_path / "a", 0.2)
    b = write_trained(tmp_path / "b", 0.2, scorers={**SCORERS, "reward": "other/reward@9"})
    paired = pair(read(a, b))
    assert paired.toxicity == "judge_toxicity"
    assert {"toxicity", "judge_gap"} <= paired.left_out


def test_no_common_classifier_is_refused(tmp_path):
    a = write_trained(tmp_path / "a", 0.2)
    b = write_trained(tmp_path / "b", 0.2, scorers={"reward": "x@1", "judge": "y@1"})
    with pytest.raises(SettingsError, match=r"runs: no classifier measured all.*a: reward some/re"):
        pair(read(a, b))


def test_starts_that_differ_are_told(tmp_path):
    a = write_trained(tmp_path / "a", 0.2)
    b = write_trained(tmp_path / "b", 0.2, start="of another model")
    paired = pair(read(a, b))
    assert paired.start is None
    assert "The starts differ" in paired.notes[0]


def test_a_start_that_was_asked_other_prompts_is_none(tmp_path):
    folder = write_evaluated(tmp_path / "e", {"base": 0.6, "two": 0.3})
    (one,) = read(folder)
    other = replace(
        one.start, answers={("cut elsewhere", 0): next(iter(one.start.answers.values()))}
    )
    paired = pair([replace(one, start=other)])
    assert paired.start is None
    assert paired.notes == []


def test_candidates_without_a_start_are_measured_against_that_of_the_others(tmp_path):
    base = write_evaluated(tmp_path / "base", {"base": 0.6})
    other = write_evaluated(tmp_path / "other", {"two": 0.3})
    paired = pair(read(base, other))
    assert paired.start_name == "base: base"
    assert paired.notes == ["No run measured a start, so changes are against base: base."]
    trained = write_trained(tmp_path / "a", 0.2)
    assert pair(read(base, trained)).start_name == "Start"


def test_groups_of_a_sweep_over_tasks(tmp_path):
    a = write_trained(tmp_path / "a", 0.2)
    b = write_trained(tmp_path / "b", 0.2, overrides=("task=flan_summary",), prompts=PROMPTS[:9])
    c = write_trained(tmp_path / "c", 0.3)
    groups = comparable_groups(read(a, b, c))
    assert [[one.name for one in group] for group in groups] == [["a", "c"], ["b"]]
