"""Every file under conf/ composes into settings, and says what each of its keys means."""

import importlib.util
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from lora_detox.__main__ import conf_dir
from lora_detox.errors import SettingsError
from lora_detox.settings import (
    DecodingSettings,
    Settings,
    known_keys,
    register_schema,
    settings_from,
    settings_yaml,
)

CONF = conf_dir()
FILES = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
OPTIONS = [(path.parent.as_posix(), path.stem) for path in FILES if path.parent != Path()]
MISSING = "/data/of/the/test"


@pytest.fixture(autouse=True)
def schema():
    register_schema()


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [f"run_dir={MISSING}/run", *overrides])


def composed_option(group, option):
    """With a value for whatever the option leaves open; a policy is pinned."""
    pinned = ["policy.revision=abc123"] if group == "policy" else []
    try:
        config = composed(f"{group}={option}", *pinned)
    except ConfigCompositionException:  # a group outside of the defaults list
        group, config = f"+{group}", composed(f"+{group}={option}")
    needed = [f"{key}={MISSING}" for key in OmegaConf.missing_keys(config)]
    return composed(f"{group}={option}", *pinned, *needed) if needed else config


def test_there_are_files_to_compose():
    assert len(OPTIONS) > 30
    wanted = {"task", "policy", "adapter", "quantization", "data", "reward", "judge"}
    wanted |= {"algorithm", "generation", "evaluation", "tracker", "debug"}
    assert wanted <= {group for group, _ in OPTIONS}


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_into_checked_settings(group, option):
    if option == "ray_gpus" and not importlib.util.find_spec("hydra_plugins.hydra_ray_launcher"):
        pytest.skip("the extra `ray` is not installed")
    config = composed_option(group, option)
    settings = OmegaConf.to_object(config)
    assert isinstance(settings, Settings)
    if group == "policy":
        assert settings.policy.path
        assert settings.policy.revision == "abc123"
    if group == "data":
        assert settings.data.fields.prompt
        assert settings.data.min_toxicity is None or settings.data.fields.toxicity
    refusals = []
    if (group, option) == ("adapter", "none"):
        refusals.append("adapter=none asks for full-weight training")
    if group == "tracker" and option != "default" and not importlib.util.find_spec(option):
        refusals.append(f"tracker.names: the package {option} is not installed")
    if group == "budget" and option in ("relevant", "strict"):
        refusals.append("budget.relevance: got 0.05, but evaluation.encoder=null")
    if group == "decoding" and option != "plain":
        refusals.append(
            f"decoding: got {option}; training and the other stages draw tokens plainly"
        )
    if not refusals:
        settings_from(config)
        return
    with pytest.raises(SettingsError, match=refusals[0]):
        settings_from(config)


@pytest.mark.parametrize("decoding", [option for group, option in OPTIONS if group == "decoding"])
def test_defaults_of_each_decoding_are_those_of_the_schema(decoding):
    """So that an entry of `evaluation.models` gets what the group would have given it."""
    adapter = ["decoding.adapter=x"] if decoding == "anti_expert" else []
    settings = settings_from(composed("stage=evaluate", f"decoding={decoding}", *adapter))
    default = DecodingSettings(name=decoding, adapter="x" if adapter else None)
    assert settings.decoding == default


@pytest.mark.parametrize("task", [option for group, option in OPTIONS if group == "task"])
@pytest.mark.parametrize("debug", [option for group, option in OPTIONS if group == "debug"])
def test_each_task_composes_with_each_debugging_aid(task, debug):
    settings = settings_from(composed(f"task={task}", f"debug={debug}"))
    assert (settings.task.name, settings.debug.name) == (task, debug)


def test_what_a_debugging_aid_says_holds():
    """Keys of config.yaml itself must not win over the group that was asked for."""
    smoke = settings_from(composed("debug=smoke"))
    assert (smoke.checkpoint.every, smoke.algorithm.iterations, smoke.data.limit) == (1, 2, 400)
    assert settings_from(composed("debug=smoke", "checkpoint.every=0")).checkpoint.every == 0


def test_a_task_brings_its_data_and_lengths_and_an_override_wins():
    settings = settings_from(composed("task=gptj_continuation"))
    assert settings.data.path == "embedded:comments"
    assert (settings.data.query_tokens, settings.generation.response_tokens) == ([10, 15], [20, 30])
    other = composed("task=gptj_continuation", "data=real_toxicity_prompts", "seed=7")
    assert settings_from(other).data.path == "allenai/real-toxicity-prompts"
    assert settings_from(other).seed == 7


def test_settings_are_free_of_omegaconf_and_come_back_from_their_yaml():
    settings = settings_from(composed("adapter.targets=[q,v]", "data.query_tokens=[3,4]"))
    assert type(settings.adapter.targets) is list
    assert type(settings.data.query_tokens) is list
    again = OmegaConf.merge(
        OmegaConf.structured(Settings), OmegaConf.create(settings_yaml(settings))
    )
    assert OmegaConf.to_object(again) == settings


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("reward.terms.rouge=0.3", "reward.terms.rouge", 0.3),
        ("reward.terms={rouge: 2, toxicity: 0}", "reward.terms.toxicity", 0.0),
        (r"reward.signs={\[negative\]: -1}", "reward.signs", {"[negative]": -1.0}),
        ("judge.signs.please=2", "judge.signs", {"please": 2.0}),
        ("reward_model.test_sets.more=a.csv", "reward_model.test_sets", {"more": "a.csv"}),
        ("reward_model.test_sets={a: b.csv}", "reward_model.test_sets", {"a": "b.csv"}),
    ],
)
def test_names_of_the_users_choice_need_no_plus(override, key, expected):
    assert OmegaConf.select(composed(override), key) == expected


def test_what_is_no_name_of_the_users_choice_is_refused():
    for wrong in ("reward.terms.rogue=1", "reward.pth=x", "evaluation.sets.toxic.limt=4"):
        with pytest.raises(ConfigCompositionException, match="Could not override"):
            composed(wrong)
    with pytest.raises(ConfigCompositionException, match=r"reward\.signs\.please=loudly"):
        composed("reward.signs.please=loudly")


def keys_with_comments(path):
    """(dotted key, whether a comment stands on its line or above it) of one file."""
    text = (CONF / path).read_text(encoding="utf-8")
    whole = "@package _global_" in text or path.parent == Path()
    stack = [] if whole else [(-1, path.parent.as_posix().replace("/", "."))]
    previous = ""  # the heading of a file explains no key
    for line in re.sub(r"\A(#.*\n)+", "", text).splitlines():
        match = re.match(r"^( *)([a-z_0-9]+):(.*)$", line)
        if match:
            indent = len(match[1])
            stack = [entry for entry in stack if entry[0] < indent]
            stack.append((indent, match[2]))
            dotted = ".".join(name for _, name in stack)
            yield dotted, "#" in match[3] or previous.lstrip().startswith("#")
        previous = line


def test_every_key_is_explained_where_it_can_be_set():
    commented = {key for path in FILES for key, says in keys_with_comments(path) if says}
    keys = set(known_keys())
    silent = {k for k in keys if k not in commented and k.rpartition(".")[0] not in commented}
    assert not silent


def test_the_files_name_no_key_beyond_the_schema():
    known = set(known_keys())
    known |= {k.rsplit(".", n)[0] for k in known for n in range(1, k.count(".") + 1)}
    for path in FILES:
        for key, _ in keys_with_comments(path):
            first, last = key.split(".")[0], key.rsplit(".", 1)[-1]
            assert key in known or first in {"hydra", "defaults"} or last == "defaults", (path, key)
