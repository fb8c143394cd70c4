"""Which runs are asked, on which base, scored by whom; what is refused before weights load."""

import importlib.util
import io
import json
import shutil
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, OFTConfig, get_peft_model
from transformers import AutoModelForCausalLM

from lora_detox import api
from lora_detox.embedded import embedded_path
from lora_detox.errors import SettingsError
from lora_detox.interactive import runs as runs_module
from lora_detox.interactive.runs import read_runs, scorers_of
from lora_detox.settings import settings_yaml
from lora_detox.settings.from_run import settings_of_run
from tests.runs import write_adapter, write_run
from tests.unit.interactive.conftest import opened, settings_for


@pytest.fixture
def no_weights(monkeypatch):
    def load(*_, **__):
        raise AssertionError("weights were loaded")

    for name in ("load_policy", "load_backbone"):
        monkeypatch.setattr(runs_module, name, load)


def other_adapter(folder, source, **options):
    """A run on the same tiny base whose adapter says something else."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("adapter", "tiny_model"))
    base = str(source / "tiny_model")
    config = LoraConfig(r=3, target_modules=["q_proj"], task_type="CAUSAL_LM", **options)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(folder / "adapter")
    return folder


def test_runs_on_one_base_share_its_weights_and_answer_as_alone(session, written, tmp_path):
    second = other_adapter(tmp_path / "second", written)
    alone = opened(settings_for(tmp_path, f"chat.run={second}"))
    both = opened(settings_for(tmp_path, f"chat.run=[{written},{second}]"))
    question = replace(session.first, prompt="Nobody here wants", samples=3)
    reply = both.ask(question)
    assert [one.title for one in reply.columns] == ["original", "first", "second"]
    first, last = session.ask(question).columns, alone.ask(question).columns
    assert [one.answers for one in reply.columns] == [
        first[0].answers,
        first[1].answers,
        last[1].answers,
    ]
    assert first[1].answers != last[1].answers
    weights = [one.backbone.get_output_embeddings().weight for one in both.policies]
    assert weights[0].data_ptr() == weights[1].data_ptr()


def test_runs_of_one_name_are_told_apart(written, tmp_path):
    again = shutil.copytree(written, tmp_path / "other" / "first")
    named = [one.name for one in read_runs(settings_for(tmp_path, f"chat.run=[{written},{again}]"))]
    assert named[0].endswith("/first")
    assert named[1] == "other/first"
    twice = settings_for(tmp_path, f"chat.run=[{written},{written}]")
    assert len({one.name for one in read_runs(twice)}) == 2


def test_a_run_is_asked_where_it_is_now(written, tmp_path, no_weights):
    moved = shutil.copytree(written, tmp_path / "moved")
    settings = settings_of_run(moved, "run")
    settings.debug.tiny_model = True
    (moved / "config.yaml").write_text(settings_yaml(settings))
    assert read_runs(settings_for(tmp_path, f"chat.run={moved}"))[0].plan.path == str(
        moved / "tiny_model"
    )
    settings.debug.tiny_model, settings.policy.path = False, "embedded:policy"
    (moved / "config.yaml").write_text(settings_yaml(settings))
    write_adapter("gptj", moved / "adapter", base="/of/another/machine/gptj")
    (run,) = read_runs(settings_for(tmp_path, f"chat.run={moved}"))
    assert run.plan.path == str(embedded_path("gptj"))
    assert run.base_name == "embedded:policy"


def test_chat_takes_the_runs_own_sampling_where_it_sets_none(session, written, tmp_path):
    generation = session.runs[0].settings.generation
    plain = runs_module.first_question(
        settings_for(tmp_path, f"chat.run={written}"), session.runs[0]
    )
    assert plain.new_tokens == generation.response_tokens[1]
    assert plain.temperature == generation.temperature
    given = ["chat.temperature=0", "chat.top_p=0.5", "chat.top_k=7", "chat.samples=2", "seed=9"]
    own = settings_for(tmp_path, f"chat.run={written}", *given, "chat.new_tokens=11")
    asked = runs_module.first_question(own, session.runs[0])
    assert (asked.temperature, asked.top_p, asked.top_k) == (0, 0.5, 7)
    assert (asked.samples, asked.seed, asked.new_tokens) == (2, 9, 11)


def test_examples_are_the_runs_prompts_without_its_template(session, written, tmp_path):
    assert session.examples == [f"Nobody here wants number {number}" for number in (1, 2, 3)]
    run = session.runs[0]
    task = replace(run.settings.task, template="Say: {prompt} =>")
    (tmp_path / "samples.jsonl").write_text('{"prompt": "Say: hello =>"}\n')
    framed = replace(run, folder=tmp_path, settings=replace(run.settings, task=task))
    assert runs_module.example_prompts(framed) == ["hello"]
    assert runs_module.example_prompts(replace(run, folder=tmp_path / "none")) == []


def with_settings(written, folder, **changes):
    copy = shutil.copytree(written, folder)
    settings = settings_of_run(copy, "run")
    for group, values in changes.items():
        setattr(settings, group, replace(getattr(settings, group), **values))
    (copy / "config.yaml").write_text(settings_yaml(settings))
    return copy


def test_a_function_of_a_runs_settings_is_not_called_unasked(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "open('called', 'w')\ndef score(prompts, completions, **_):\n"
        "    return [float(len(one)) for one in completions]\n"
    )
    run = with_settings(
        written, tmp_path / "run", reward={"function": "mine.py:score", "path": None}
    )
    settings = settings_for(tmp_path, f"chat.run={run}")
    scoring = scorers_of(read_runs(settings), settings)
    assert scoring.judge_alone
    assert "reward.function=mine.py:score runs it" in scoring.notes[0]
    assert opened(settings).scorers.keys() == {"judge"}
    assert not (tmp_path / "called").exists()
    asked = settings_for(tmp_path, f"chat.run={run}", "reward.function=mine.py:score")
    asked.reward.probe = False
    assert scorers_of(read_runs(asked), asked).notes == []


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        ([], r"chat\.run: no value given; stage=chat wants a finished run, as in chat\.run=DIR"),
        (["chat.run=[]"], r"chat\.run: no value given"),
        (["chat.run=nowhere"], r"chat\.run: nowhere has no config\.yaml"),
        (["chat.run=[RUN,nowhere]"], r"chat\.run: nowhere has no config\.yaml"),
        (
            ["chat.run=RUN", "chat.strength=1.6"],
            r"chat\.strength: got 1\.6, want a number from 0 to",
        ),
        (["chat.run=RUN", "chat.strength=-0.1"], r"chat\.strength: got -0\.1"),
        (["chat.run=RUN", "chat.samples=17"], r"chat\.samples: got 17"),
        (["chat.run=RUN", "chat.port=0"], r"chat\.port: got 0, want a number from 1 to 65535"),
    ],
)
def test_what_is_refused_before_anything_is_imported(written, tmp_path, overrides, match):
    overrides = [one.replace("RUN", str(written)) for one in overrides]
    with pytest.raises(SettingsError, match=match):
        settings_for(tmp_path, *overrides)


def test_a_run_that_did_not_finish_is_refused(written, tmp_path):
    unfinished = shutil.copytree(written, tmp_path / "unfinished")
    (unfinished / "summary.json").unlink()
    with pytest.raises(SettingsError, match=r"chat\.run: .* did not finish; .*resume=true"):
        settings_for(tmp_path, f"chat.run={unfinished}")


def test_the_browser_wants_its_extra(written, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda n, *a: None if n == "gradio" else real(n, *a)
    )
    with pytest.raises(SettingsError, match=r"chat\.interface: .*pip install 'lora-detox\[chat\]'"):
        settings_for(tmp_path, f"chat.run={written}", "chat.interface=browser")
    settings_for(tmp_path, f"chat.run={written}")


def test_files_that_are_not_the_runs_own_are_refused(written, tmp_path, no_weights):
    odd = shutil.copytree(written, tmp_path / "odd")
    (odd / "config.yaml").write_text("policy: {path: x, banana: 1}\n")
    with pytest.raises(SettingsError, match=r"chat\.run: .*config\.yaml does not fit.*banana"):
        read_runs(settings_for(tmp_path, f"chat.run={odd}"))
    (odd / "config.yaml").write_text("policy: {path: x}\nalgorithm: {kl_coef: 1}\n")
    with pytest.raises(SettingsError, match=r"chat\.run: .*earlier version.*algorithm\.kl\.coef"):
        read_runs(settings_for(tmp_path, f"chat.run={odd}"))
    (odd / "config.yaml").write_text("policy: {path: '${oc.env:HOME}'}\n")
    with pytest.raises(SettingsError, match=r"asks for another one \(policy\.path: \$\{oc"):
        read_runs(settings_for(tmp_path, f"chat.run={odd}"))
    other = write_run(tmp_path / "t5", "t5")
    mixed = shutil.copytree(written, tmp_path / "mixed", ignore=lambda *_: ["adapter"])
    shutil.copytree(other / "adapter", mixed / "adapter")
    config = mixed / "adapter" / "adapter_config.json"
    described = json.loads(config.read_text())
    described["base_model_name_or_path"] = str(written / "tiny_model")
    config.write_text(json.dumps(described))
    with pytest.raises(SettingsError, match=r"chat\.run: .*mixed cannot be asked: policy\.adapter"):
        read_runs(settings_for(tmp_path, f"chat.run={mixed}"))


def test_an_adapter_without_a_strength_is_asked_at_1_alone(written, tmp_path, no_weights):
    turned = shutil.copytree(written, tmp_path / "turned", ignore=lambda *_: ["adapter"])
    base = str(written / "tiny_model")
    config = OFTConfig(r=2, oft_block_size=0, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    model.save_pretrained(turned / "adapter")
    (run,) = read_runs(settings_for(tmp_path, f"chat.run={turned}"))
    assert "OFT" in run.fixed_strength
    with pytest.raises(
        SettingsError, match=r"chat\.strength: got 0\.5, .* only be used at strength 1"
    ):
        read_runs(settings_for(tmp_path, f"chat.run={turned}", "chat.strength=0.5"))


def test_an_encoder_decoder_answers_through_its_template(tmp_path):
    run = write_run(tmp_path / "t5", "t5")
    session = opened(settings_for(tmp_path, f"chat.run={run}", "chat.new_tokens=4"))
    reply = session.ask(replace(session.first, prompt="Ann: hi\nBob: go away", samples=2))
    assert [len(one.answers) for one in reply.columns] == [2, 2]


def test_the_stage_answers_piped_lines_and_keeps_no_prompt(written, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("Nobody here wants\n/samples 2\nYou are\n"))
    overrides = ["stage=chat", f"chat.run={written}", "chat.interface=terminal", "threads=1"]
    summary = api.run([*overrides, "chat.new_tokens=4"], tmp_path / "out")
    assert summary["prompts"] == 2
    assert summary["runs"] == {"first": str(written)}
    shown = capsys.readouterr().out
    assert "original (" in shown
    assert "detoxified (first, strength 1)" in shown
    kept = "".join(path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert "Nobody here" not in kept
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
