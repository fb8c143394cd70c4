"""Writing to a hub: create, upload, refuse, and load again what was pushed."""

import json

import pytest

from tests.hub.conftest import POLICY
from tests.runs import write_run

pytestmark = pytest.mark.hub

PUSH = """
import json, os, sys
from lora_detox import api
from lora_detox.errors import DetoxError
from lora_detox.export import adapter
from lora_detox.export.reload import load_plain, logits_of

run, out = sys.argv[1:3]
EXPORT = ["stage=export", f"run={run}", "threads=1"]

def export(name, *overrides):
    try:
        return api.run([*EXPORT, *overrides], f"{out}/{name}")
    except DetoxError as error:
        return str(error)

found = {}
found["no_token"] = export("1", "export.repo_id=writer/adapter")
os.environ["HF_TOKEN"] = "hf_nonsense"
found["wrong_token"] = export("2", "export.repo_id=writer/adapter")
os.environ["HF_TOKEN"] = "hf_writes"
found["pushed"] = export("3", "export.repo_id=writer/adapter", "export.private=true")
# What follows is refused by the hub; that the adapter loads in a fresh process was just shown.
adapter.logits_in_fresh_process = lambda request: logits_of(load_plain(request), request["rows"])
found["not_mine"] = export("4", "export.repo_id=somebody/adapter")
os.environ["HF_TOKEN"] = "hf_reads"
found["read_only"] = export("5", "export.repo_id=writer/other")
print(json.dumps(found))
"""

LOAD = """
import json, sys
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM

base_id, revision, adapter = sys.argv[1:4]
ids = torch.tensor([[5, 9, 200, 31]])
with torch.no_grad():
    base = AutoModelForCausalLM.from_pretrained(base_id, revision=revision)
    bare = base(ids).logits
    model = PeftModel.from_pretrained(base, adapter)
    auto = AutoPeftModelForCausalLM.from_pretrained(adapter)
    print(json.dumps({
        "moved": float((model(ids).logits - bare).abs().max()),
        "same": float((model(ids).logits - auto(ids).logits).abs().max()),
        "logits": model(ids).logits[0, -1, :5].tolist(),
        "base": auto.peft_config["default"].base_model_name_or_path,
        "revision": auto.peft_config["default"].revision,
    }))
"""


def last_json(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_an_export_is_pushed_refused_where_it_should_be_and_loads_with_plain_peft(
    hub, client, tmp_path
):
    finished = write_run(tmp_path / "finished", "gptj", base=POLICY)
    done = client("-c", PUSH, str(finished), str(tmp_path / "out"))
    found = last_json(done)
    assert "no token was found" in found["no_token"]
    assert "hf auth login" in found["no_token"]
    assert "does not know the token (401)" in found["wrong_token"]
    assert "hf_nonsense" not in json.dumps(found) + done.stdout + done.stderr
    assert "rights to write" in found["not_mine"]
    assert "may only read" in found["read_only"]

    assert isinstance(found["pushed"], dict), found["pushed"]
    pushed = found["pushed"]["pushed"]
    repo = hub.repos["model", "writer/adapter"]
    assert repo.private
    assert pushed["commit"] == repo.branches["main"]
    files = repo.commits[pushed["commit"]]
    assert set(files) == {
        ".gitattributes",
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    stored = (finished / "adapter" / "adapter_model.safetensors").read_bytes()
    assert files["adapter_model.safetensors"] == stored
    assert ("model", "somebody/adapter") not in hub.repos
    card = files["README.md"].decode()
    assert f"base_model: {POLICY}" in card
    assert hub.newest in card  # the commit that the run read is pinned

    arguments = ("-c", LOAD, POLICY, hub.newest, "writer/adapter")
    loaded = last_json(client(*arguments, token="hf_reads", home="another"))
    assert loaded["moved"] > 1e-4
    assert loaded["same"] == 0
    assert (loaded["base"], loaded["revision"]) == (POLICY, hub.newest)
    hub.requests.clear()
    cached = last_json(client(*arguments, token="hf_reads", home="another", offline=True))
    assert cached["logits"] == loaded["logits"]
    assert hub.requests == []


def test_a_dry_run_sends_nothing(hub, client, tmp_path):
    finished = write_run(tmp_path / "finished", "gptj", base=POLICY)
    hub.requests.clear()
    done = client(
        "-m",
        "lora_detox",
        "stage=export",
        f"run={finished}",
        "export.repo_id=writer/dry",
        "export.dry_run=true",
        "threads=1",
        f"hydra.run.dir={tmp_path}/out",
    )
    assert done.returncode == 0, done.stderr
    assert "would send to writer/dry" in done.stdout
    assert "adapter_model.safetensors" in done.stdout
    assert ("model", "writer/dry") not in hub.repos
    assert not [one for one in hub.requests if one.startswith(("POST", "PUT"))]
