"""Memory runs out with more rows than fit: the result is that of a run with room for all."""

import json
from contextlib import ExitStack, contextmanager

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from lora_detox.api import run
from lora_detox.errors import OutOfMemoryError, ScorerError
from lora_detox.fitting import GENERATION, PASSES, kept_sizes, remembering
from lora_detox.rollout import Passes, collect_rollout, generate_responses
from lora_detox.stages import detox
from lora_detox.types import Sampling
from tests.runs import SMOKE, TASKS
from tests.tiny import DECODER_ONLY, ENCODER_DECODER, VOCABULARY, tiny_policy, tiny_prompts
from tests.unit.update.test_ppo_update import Trial

FAMILIES = pytest.mark.parametrize("architecture", [ENCODER_DECODER, DECODER_ONLY])
LENGTHS = [5, 2, 7, 3, 4, 6, 2, 5]


@contextmanager
def room_for(rows, *, vocabulary=64):
    """More rows than these do not fit into any model that reads tokens."""

    def need(module, inputs):
        if isinstance(module, nn.Embedding) and module.num_embeddings >= vocabulary:
            torch.empty(2**50 if len(inputs[0]) > rows else 1)

    hook = register_module_forward_pre_hook(need)
    try:
        yield
    finally:
        hook.remove()


def collected(policy, prompts, responses):
    passes = Passes(rows=4)
    return collect_rollout(
        policy, prompts, responses, Sampling(), minibatch_size=4, passes=passes, seed=5
    )


@FAMILIES
def test_generation_and_reference_go_on_with_fewer_rows(architecture):
    policy = tiny_policy(architecture)
    prompts = tiny_prompts(policy, LENGTHS)
    options = {"response_tokens": (2, 6), "batch_size": 8, "seed": 3}
    whole = generate_responses(policy, prompts, Sampling(), **options)
    with remembering(), room_for(3, vocabulary=VOCABULARY):
        halved = generate_responses(policy, prompts, Sampling(), **options)
        assert kept_sizes() == {GENERATION.name: 2}
    assert torch.equal(whole.ids, halved.ids)
    assert torch.equal(whole.mask, halved.mask)
    assert whole.texts == halved.texts
    first = collected(policy, prompts, whole)
    with remembering(), room_for(1, vocabulary=VOCABULARY):
        second = collected(policy, prompts, whole)
        assert kept_sizes() == {PASSES.name: 1}
    for name in ("logprobs", "ref_logprobs", "values"):
        torch.testing.assert_close(
            getattr(first, name), getattr(second, name), rtol=1e-5, atol=1e-5
        )
    for one, other in zip(first.minibatches, second.minibatches, strict=True):
        assert torch.cat(one).tolist() == torch.cat(other).tolist()
        assert {len(rows) for rows in other} == {1}


@FAMILIES
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_an_update_that_fails_halfway_begins_the_minibatch_anew(architecture, where):
    whole, halved = Trial(architecture, microbatch_size=2), Trial(architecture, microbatch_size=2)
    start = whole.weights()
    stats = whole.step(learning_rate=1e-3)
    calls = []

    def fail_once(gradient):
        calls.append(len(gradient))
        if len(calls) == 2:  # the second microbatch of the first minibatch
            torch.empty(2**50)

    def watch(module, inputs, output):
        if where == "forward":
            return fail_once(output)
        if output.requires_grad:
            output.register_hook(fail_once)
        return None

    hook = halved.policy.value_head.register_forward_hook(watch)
    with remembering():
        same = halved.step(learning_rate=1e-3)
        assert kept_sizes() == {PASSES.name: 1}
    hook.remove()
    assert len(calls) > 2
    move, same_move = whole.weights() - start, halved.weights() - start
    torch.testing.assert_close(move, same_move, rtol=1e-3, atol=1e-3 * float(move.abs().max()))
    assert same.optimizer_steps == stats.optimizer_steps
    for name in ("policy_loss", "value_loss", "entropy", "approx_kl", "gradient_norm"):
        assert getattr(same, name) == pytest.approx(getattr(stats, name), rel=1e-4, abs=1e-7)


REWARD = """
calls = []
def reward(prompts, completions, references, **columns):
    assert len(prompts) == len(completions) == len(references)
    calls.append(len(completions))
    if len(completions) > ROWS:
        raise MemoryError
    return [float(len(set(text))) for text in completions]
"""
OPTIONS = [
    *SMOKE,
    "algorithm.iterations=3",
    "checkpoint.every=0",
    "reward.probe=false",
    "adapter.dropout=0",
    "evaluation.every=3",
    "evaluation.validation_prompts=4",
    "evaluation.test_prompts=4",
    "evaluation.resamples=20",
]


@contextmanager
def room_after_loading(monkeypatch, rows):
    """The same once weights are loaded: the check of a fresh policy reads a few rows at once."""
    with ExitStack() as stack, monkeypatch.context() as patch:

        def begin(job, evaluate=detox.evaluate_start):
            stack.enter_context(room_for(rows))
            return evaluate(job)

        patch.setattr(detox, "evaluate_start", begin)
        yield


def options_of(architecture, folder, rows):
    file = folder / f"reward_{rows}.py"
    file.write_text(REWARD.replace("ROWS", str(rows)))
    return [*OPTIONS, f"task={TASKS[architecture]}", f"reward.function={file}:reward"]


def assert_alike(one, other):
    first, second = (
        load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, other)
    )
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=0, atol=1e-5)


@pytest.mark.training
@pytest.mark.slow
@pytest.mark.parametrize("architecture", list(TASKS))
def test_a_run_without_room_ends_as_one_with_room(architecture, monkeypatch, tmp_path, capsys):
    """Evaluation, generation, scoring, reference and update, all with one row at a time."""
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    run(options_of(architecture, tmp_path, 100), whole)
    capsys.readouterr()
    with room_after_loading(monkeypatch, 1):
        summary = run(options_of(architecture, tmp_path, 3), halved)
    assert_alike(whole, halved)
    kept = summary["rows_at_once"]
    assert kept[GENERATION.name] == kept[PASSES.name] == kept["scoring (reward)"] == 1
    assert kept["the reward function reward_3.py:reward"] in (2, 3)
    notes = [one for one in capsys.readouterr().out.splitlines() if "out of memory" in one]
    assert len(notes) == len(set(notes))
    samples = [
        [json.loads(line)["after"] for line in (folder / "samples.jsonl").open()]
        for folder in (whole, halved)
    ]
    assert samples[0] == samples[1]


@pytest.mark.training
@pytest.mark.slow
def test_not_even_one_row_ends_with_a_checkpoint_to_go_on_from(monkeypatch, tmp_path):
    whole, ended = tmp_path / "whole", tmp_path / "ended"
    options = options_of("gptj", tmp_path, 100)
    run(options, whole)
    message = (
        r"a single row .*lower `generation.response_tokens.* stage=plan.* Iteration 2 of 3 is kept "
        r"in .*iteration_000002: resume=true"
    )
    with ExitStack() as stack, monkeypatch.context() as patch:

        def third(job, iteration, iterate=detox.iterate):
            if iteration == 2:
                stack.enter_context(room_for(0))
            return iterate(job, iteration)

        patch.setattr(detox, "iterate", third)
        with pytest.raises(OutOfMemoryError, match=message):
            run(options, ended)
    assert [one.name for one in (ended / "checkpoints").iterdir()] == ["iteration_000002"]
    assert not (ended / "summary.json").exists()
    run([*options, "resume=true"], ended)
    assert_alike(whole, ended)


@pytest.mark.training
def test_a_fault_of_a_reward_is_no_lack_of_memory(tmp_path):
    (tmp_path / "reward.py").write_text("def reward(**k):\n    raise ValueError('no memory of it')")
    options = [*OPTIONS, f"task={TASKS['gptj']}", f"reward.function={tmp_path}/reward.py:reward"]
    with pytest.raises(ScorerError, match="no memory of it"):
        run(options, tmp_path / "run")
