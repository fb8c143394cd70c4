"""What Hydra trips over is answered by the way to type it, through the command line itself."""

import os
import re
import shlex
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lora_detox import api
from lora_detox.__main__ import main
from lora_detox.errors import SettingsError

TEMPLATE = "{prompt} TL;DR="
TRAPS = {
    # `=`, braces and other signs of Hydra's in a text
    f"task.template={TEMPLATE}": f'task.template="{TEMPLATE}"',
    "task.template=Say: {prompt}": 'task.template="Say: {prompt}"',
    "task.template={prompt} it's": 'task.template="{prompt} it\'s"',
    'task.template={prompt} "so"': "task.template='{prompt} \"so\"'",
    "data.skip=a=b": 'data.skip="a=b"',
    "data.skip=(a|b)": 'data.skip="(a|b)"',
    "data.skip=[abc]+": 'data.skip="[abc]+"',
    "data.skip=^no.*": 'data.skip="^no.*"',
    "data.skip=#tag": 'data.skip="#tag"',
    'data.skip="half': "data.skip=half",
    "data.skip=привет мир": 'data.skip="привет мир"',
    "data.skip=日本語": 'data.skip="日本語"',
    "data.skip=hello, world": 'data.skip="hello, world"',
    "hydra.run.dir=my run (1)": 'hydra.run.dir="my run (1)"',
    # paths
    "data.path=a,b.jsonl": 'data.path="a,b.jsonl"',
    "data.path=rows (1).jsonl": 'data.path="rows (1).jsonl"',
    "data.path=~/rows.jsonl": "data.path=HOME/rows.jsonl",
    "data.path=$HOME/rows.jsonl": "data.path=HOME/rows.jsonl",
    "data.path=${HOME}/rows.jsonl": "data.path=HOME/rows.jsonl",
    "data.path='C:\\data\\'": "data.path=C:/data/",
    "data.path=C:\\my (x)\\a.jsonl": 'data.path="C:/my (x)/a.jsonl"',
    # lists
    "adapter.targets=q_proj,v_proj": "adapter.targets=[q_proj,v_proj]",
    "adapter.targets=q_proj v_proj": "adapter.targets=[q_proj,v_proj]",
    "adapter.targets=(q_proj,v_proj)": "adapter.targets=[q_proj,v_proj]",
    "adapter.targets='q_proj','v_proj'": "adapter.targets=[q_proj,v_proj]",
    "adapter.targets=q_proj": "adapter.targets=[q_proj]",
    "generation.response_tokens=10,20": "generation.response_tokens=[10,20]",
    "generation.response_tokens=10-20": "generation.response_tokens=[10,20]",
    "generation.response_tokens=10": "generation.response_tokens=[10]",
    "soup=runs/a,runs/b": "soup=[runs/a,runs/b]",
    # mappings
    "reward.terms={rouge=1}": "reward.terms={rouge: 1}",
    "reward.signs={[negative]: -1}": r"reward.signs={\[negative\]: -1}",
    "reward.probe_texts={civil: [Да], toxic: [Дурак!]}": (
        'reward.probe_texts={civil: ["Да"], toxic: ["Дурак!"]}'
    ),
    'reward.probe_texts={"civil": ["a"], "toxic": ["b"]}': (
        "reward.probe_texts={civil: [a], toxic: [b]}"
    ),
    "evaluation.models=[{path: a, name: b (1)}]": 'evaluation.models=[{path: a, name: "b (1)"}]',
    # groups
    "policy.gpt2": "policy=gpt2",
    "policy.gpt2=x": "policy=gpt2",
    "policy/gpt2": "policy=gpt2",
    "policy:gpt2": "policy=gpt2",
    "reward.local": "reward=local",
    "reward.local=x": "reward=local",
    "gptj_continuation": "task=gptj_continuation",
    "+policy=gpt2": "policy=gpt2",
    "policy=./folder": "policy=local policy.path=./folder",
    "policy=folder": "policy=local policy.path=folder",
    "policy=google/flan-t5-base": "policy=local policy.path=google/flan-t5-base",
    "policy=my model (1)": 'policy=local policy.path="my model (1)"',
    "data=rows.jsonl": "data=local data.path=rows.jsonl",
    "policy=gpt2-medium": "policy=gpt2_medium",
    "policy=GPT2": "policy=gpt2",
    "budget=false": "budget=off",
    "budget=null": "budget=off",
    "budget=true": "budget=default",
    "guard=None": "guard=off",
    "guard=no": "guard=off",
    "judge=null": "judge=none",
    "~judge": "judge=none",
    "quantization=8": "quantization=none",
    "evaluation.sets.toxic=wiki_toxic": "data@evaluation.sets.toxic=wiki_toxic",
    # keys
    "policy/path=x": "policy.path=x",
    "~judge.path": "judge.path=null",
    "policy.path": "policy.path=VALUE",
    # how it is typed
    "--task=gptj_continuation": "task=gptj_continuation",
    "-task=gptj_continuation": "task=gptj_continuation",
    "--policy.path=x": "policy.path=x",
    "--resume": "resume=true",
    "--learning-rate=1e-4": "algorithm.learning_rate=1e-4",
    "task = gptj_continuation": "task=gptj_continuation",
    # numbers and nothing
    "data.min_toxicity=None": "data.min_toxicity=null",
    "data.skip=none": "data.skip=null",
    "data.min_toxicity=0,5": "data.min_toxicity=0.5",
    "data.limit=1,000": "data.limit=1000",
    "data.limit=1e3": "data.limit=1000",
    "algorithm.learning_rate=1e-4,": "algorithm.learning_rate=1e-4",
    "seed=1,2": "--multirun seed=1,2",
    "task=gptj_continuation,flan_summary": "--multirun task=gptj_continuation,flan_summary",
}


@pytest.fixture
def refuse(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "HOME")
    (tmp_path / "folder").mkdir()
    (tmp_path / "rows.jsonl").touch()

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lora_detox", *arguments])
        assert main() == 2
        message = capfd.readouterr().err
        assert "Traceback" not in message
        assert "hydra.cc" not in message
        assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "rows.jsonl"]
        return message

    return run


@pytest.mark.parametrize("typed", TRAPS)
def test_one_override(refuse, typed):
    message, want = refuse(typed), TRAPS[typed]
    assert f"{typed}: " in message
    last = message.split(f"{typed}: ", 1)[1]
    for word in _words(want):
        assert shlex.quote(word) in last


def _words(want):
    """What is typed in a shell for each override of a wanted command."""
    starts = [match.start() for match in re.finditer(r"(?:^|(?<= ))[a-z@_.]+=", want)]
    whole = want.startswith(("policy=local ", "data=local "))
    return want.split(" ", 1) if whole or want.startswith("--") else [want[starts[0] :]]


@pytest.mark.parametrize("want", [w for w in TRAPS.values() if not w.startswith("--")])
def test_hydra_takes_what_it_is_told(want):
    for word in _words(want):
        assert OverridesParser.create().parse_override(word).key_or_group in word


def test_the_value_that_was_meant_arrives():
    for typed, want in TRAPS.items():
        if typed.startswith(("task.template=", "data.skip=")) and not want.endswith("null"):
            value = typed.split("=", 1)[1].removeprefix('"')
            assert OverridesParser.create().parse_override(want).value() == value


SPACES = "no spaces around `=`; want task=imdb_sentiment"
SEVERAL = [
    (["task", "=", "imdb_sentiment"], f"task = imdb_sentiment: {SPACES}"),
    (["task", "=imdb_sentiment"], f"task =imdb_sentiment: {SPACES}"),
    (["task=", "imdb_sentiment"], f"task= imdb_sentiment: {SPACES}"),
    (["data.skip=hello", "world"], "quotes: 'data.skip=hello world'"),
    (["--task", "imdb_sentiment"], "--task imdb_sentiment: no dashes .*; want task=imdb_sentiment"),
    (
        ["mini", "seed=1"],
        "no group stands before it; want judge=mini or policy=mini or reward=mini",
    ),
    (["--multirun", "adapter.targets=q,v"], "want 'adapter.targets=[q,v]'"),
    (["judge.terms=3"], "want one of judge.terms.toxicity, judge.terms.rouge"),
    (["policy"], "policy: no option given; want policy= and one of .*gpt2"),
    (["adapter={lora}"], "adapter={lora}: Hydra cannot read the value; want .*dora, lora, none"),
    (["budget.words=[1.0,null"], "want 'budget.words=[A,B]'"),
    (["data.skip=a=b", "budget=false"], "data.skip=a=b: .*\nbudget=false: .*budget=off"),
]


@pytest.mark.parametrize(("arguments", "want"), SEVERAL)
def test_several_words(refuse, arguments, want):
    pattern = re.escape(want).replace(r"\.\*", ".*")
    assert re.search(pattern, refuse(*arguments))


def test_old_keys_come_first(refuse):
    message = refuse("algorithm.kl_penalty=a=b")
    assert message.startswith("error: algorithm.kl_penalty: renamed to algorithm.kl.charge")


def test_python_gets_the_same_advice():
    with pytest.raises(SettingsError, match=r"want 'adapter\.targets=\[q,v\]'"):
        api.compose_settings(["adapter.targets=q,v"])


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ('data.skip="None"', "data.skip", "None"),
        ("data.skip=user@host:50%", "data.skip", "user@host:50%"),
        ("resume=yes", "resume", True),
        ("data.limit=1_000", "data.limit", 1000),
        ("adapter.targets=[]", "adapter.targets", []),
        ("+data@evaluation.sets.more=bold", "evaluation.sets.more.path", "AmazonScience/bold"),
        ("reward.signs={\\[negative\\]: -1}", "reward.signs", {"[negative]": -1.0}),
    ],
)  # fmt: skip
def test_what_hydra_takes_is_left_to_it(override, key, value):
    node = api.compose_settings([override])
    for name in key.split("."):
        node = node[name] if isinstance(node, dict) else getattr(node, name)
    assert node == value


def test_variables_of_a_path_that_is_there_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "$HOME").mkdir()
    assert os.environ["HOME"]
    assert api.compose_settings(["data.path=$HOME"]).data.path == "$HOME"
