"""Reading from a hub: download, cache, offline, pinned revisions, and what can be missing."""

import json

import pytest

from tests.hub.conftest import DATA, POLICY, REWARD
from tests.runs import untimed

pytestmark = pytest.mark.hub

EVALUATE = [
    "-m",
    "lora_detox",
    "stage=evaluate",
    "task=gptj_continuation",
    "policy=gpt_neo_125m",
    "data=real_toxicity_prompts",
    "reward=roberta_dynabench",
    "judge=none",
    "evaluation.prompts=4",
    "evaluation.new_tokens=4",
    "threads=1",
]


def test_the_real_names_download_are_cached_and_run_again_offline(hub, client, tmp_path):
    pin = f"policy.revision={hub.pinned}"
    first = client(*EVALUATE, pin, f"hydra.run.dir={tmp_path}/1")
    assert first.returncode == 0, first.stderr
    summary = json.loads((tmp_path / "1" / "summary.json").read_text())
    model = summary["models"][0]
    assert (model["path"], model["revision"]) == (POLICY, hub.pinned)
    assert summary["scorers"]["reward"].startswith(f"{REWARD}@")
    assert summary["prompts"]["in_distribution"] == {"data": "real-toxicity-prompts", "prompts": 4}
    downloads = [one for one in hub.requests if one.startswith("GET") and "/resolve/" in one]
    weights = [one for one in downloads if one.endswith(".safetensors")]
    assert f"GET /{POLICY}/resolve/{hub.pinned}/model.safetensors" in weights
    assert len(weights) == 2  # one of the policy, one of the reward, each once

    hub.requests.clear()
    offline = client(*EVALUATE, pin, f"hydra.run.dir={tmp_path}/2", offline=True)
    assert offline.returncode == 0, offline.stderr
    assert hub.requests == []
    again = json.loads((tmp_path / "2" / "summary.json").read_text())
    sets = again["models"][0]["sets"]
    assert {role: untimed(one) for role, one in sets.items()} == {
        role: untimed(one) for role, one in model["sets"].items()
    }


MISSES = """
import json, sys
from lora_detox.errors import DetoxError
from lora_detox.policy.preflight import BackbonePlan, check_backbone
from lora_detox.policy.adapter import AdapterPlan
from lora_detox.prompts import load_prompt_sets
from lora_detox.scores import check_classifier

reward, data, policy = sys.argv[1:4]

def said(function, *arguments, **keywords):
    try:
        function(*arguments, **keywords)
    except DetoxError as error:
        return str(error)
    return ""

def check_policy(path, revision=None):
    check_backbone(BackbonePlan(path=path, revision=revision), AdapterPlan(rank=1, alpha=1))

def rows(path, revision=None):
    load_prompt_sets(path=path, revision=revision, fields={"prompt": "prompt.text"})

print(json.dumps({
    "missing": said(check_policy, "nobody/nothing"),
    "revision": said(check_policy, policy, "v9"),
    "gated": said(check_policy, "closed/model"),
    "pickles": said(check_policy, "old/pickles"),
    "scorer": said(check_classifier, "nobody/classifier"),
    "scorer_revision": said(check_classifier, reward, None, "judge", "v9"),
    "data": said(rows, "nobody/data"),
    "data_revision": said(rows, data, "v9"),
}))
"""


def test_what_is_missing_is_said_with_a_way_out_before_weights_load(hub, client):
    hub.requests.clear()
    done = client("-c", MISSES, REWARD, DATA, POLICY)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    expected = {
        "missing": ("policy.path", "there is no nobody/nothing", "hf auth login"),
        "revision": ("policy.path", "has no revision 'v9'", "branch, tag or commit"),
        "gated": ("policy.path", "closed/model is gated", "accept its terms", "hf auth login"),
        "pickles": ("policy.path", "no safetensors", "policy.revision=refs/pr/NUMBER"),
        "scorer": ("reward.path", "there is no nobody/classifier"),
        "scorer_revision": ("judge.revision", "has no revision 'v9'"),
        "data": ("data.path", "there is no nobody/data"),
        "data_revision": ("data.path", "has no revision 'v9'"),
    }
    for case, parts in expected.items():
        assert all(part in said[case] for part in parts), (case, said[case])
    assert not [one for one in hub.requests if "safetensors" in one]


def test_an_unreachable_hub_offers_the_cache(client):
    command = (
        "import os; os.environ['HF_ENDPOINT'] = 'http://127.0.0.1:9';"
        "from lora_detox.policy.preflight import BackbonePlan, read_config;"
        "read_config(BackbonePlan(path='google/flan-t5-base'))"
    )
    done = client("-c", command)
    assert "SettingsError: policy.path: cannot read 'google/flan-t5-base'" in done.stderr
    assert "HF_HUB_OFFLINE=1" in done.stderr
