"""A run whose responses a vLLM server samples: adapters go there, the gap is bounded."""

import json
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from lora_detox.__main__ import main
from lora_detox.embedded import embedded_path
from tests.vllm_server import StandIn

RUN = [
    "task=gptj_continuation",
    "debug=smoke",
    "debug.tiny_model=false",
    "threads=1",
    "rollout=vllm",
    "evaluation.test_prompts=8",
    "generation.response_tokens=[4,8]",
    "data.limit=60",
    "budget=off",
]
ANY = "rollout.url=http://127.0.0.1:9"


def base():
    """In the number format of the run; the file's own, fp16, makes a gap of 5e-4 nats."""
    return AutoModelForCausalLM.from_pretrained(embedded_path("gptj"), dtype=torch.float32)


@pytest.fixture
def server():
    stand_in = StandIn(base)
    yield stand_in
    stand_in.close()


@pytest.fixture
def command(monkeypatch, tmp_path, capfd):
    def run(*overrides):
        words = [*RUN, f"hydra.run.dir={tmp_path}/run", *overrides]
        monkeypatch.setattr(sys, "argv", ["lora_detox", *words])
        monkeypatch.setattr("lora_detox.rollout.vllm_server._PAUSE_SECONDS", 0.0)
        return main(), capfd.readouterr().err

    return run


@pytest.mark.training
def test_a_run_trains_on_what_the_server_samples(server, command, tmp_path):
    status, error = command(f"rollout.url={server.url}", "algorithm.learning_rate=0.01")
    assert status == 0, error
    loads = [name for what, name in server.log if what == "load"]
    assert len(set(loads)) == 2  # one per iteration; evaluations are our own
    assert [what for what, _ in server.log] == ["load", "unload"] * 2
    assert len(server.bodies) == 16
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    for row in rows[1:]:
        assert 0 < row["sampling_gap_mean"] < 1e-4
        assert row["sampling_ratio"] == pytest.approx(1, abs=1e-3)
        assert row["sampling_ratio_clipped"] == 0
    assert not list((tmp_path / "run" / "vllm").iterdir())
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.training
def test_a_server_without_the_adapter_ends_the_run(server, command):
    server.faults.add("raw logprobs")
    status, error = command(f"rollout.url={server.url}", "generation.temperature=0.5", "guard=off")
    assert status == 2
    assert "logprobs of the server and ours differ by" in error
    assert "rollout.most_gap=0.1" in error


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=flan_summary"], "encoder-decoders are not in vLLM"),
        (["adapter=dora"], "adapter.dora: got true; vLLM has no DoRA"),
        (["adapter.init=pissa", "adapter.force_init=true"], "adapter.init: got pissa"),
        (["adapter.rank=1024"], "vLLM takes ranks up to 512"),
        (["generation.top_p=0.9"], "generation.top_p: got 0.9; with rollout=vllm"),
        (["generation.top_k=50"], "generation.top_k: got 50"),
        (["algorithm=best_of_n"], "algorithm=best_of_n samples by itself"),
        (["rollout.url=localhost:8000"], "rollout.url: got localhost:8000; want that of a vLLM"),
        (["rollout.url=http://x:y"], "rollout.url: got http://x:y"),
        (["rollout.most_ratio=0.5"], "rollout.most_ratio"),
        (["rollout.most_gap=0"], "rollout.most_gap"),
        (["rollout.engine=sglang"], "rollout.engine"),
        ([], "rollout.url: http://127.0.0.1:9/v1/models does not answer"),
    ],
)
def test_what_a_server_cannot_do_is_refused_before_weights_load(overrides, message, command):
    status, error = command(ANY, *overrides)
    assert status == 2
    assert message in error
    assert "loading embedded" not in error
