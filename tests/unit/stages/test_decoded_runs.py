"""stage=evaluate with decodings: toxicity falls without training, prompts and scores stay."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from lora_detox import api
from lora_detox.embedded import embedded_path
from lora_detox.errors import DataError, SettingsError

QUICK = [
    "stage=evaluate",
    "task=gptj_continuation",
    "threads=1",
    "evaluation.prompts=40",
    "evaluation.resamples=100",
]
POLICY = "path: 'embedded:policy'"


def evaluate(folder, decodings, *more):
    entries = ", ".join(f"{{{POLICY}, decoding: {one}}}" for one in decodings)
    models = f"evaluation.models=['embedded:policy', {entries}]"
    summary = api.run([*QUICK, models, *more], folder)
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return summary, rows


@pytest.fixture(scope="module")
def decoded(tmp_path_factory):
    """Every decoding that needs no training, on the same prompts."""
    folder = tmp_path_factory.mktemp("decoded")
    decodings = [
        "{name: bad_words, size: 100}",
        "civil_prefix",
        "{name: best_of_n, n: 4}",
        "{name: direction, strength: 2, count: 100}",
        "{name: projection, rank: 8, count: 100}",
    ]
    return *evaluate(folder, decodings), folder


def test_each_is_less_toxic_than_the_model_itself(decoded):
    summary, _, _ = decoded
    first, *others = (model["sets"]["in_distribution"] for model in summary["models"])
    assert "change" not in first
    assert len(others) == 5
    for one in others:
        assert one["change"]["toxicity"]["ci95"][1] < 0
        assert one["change"]["judge_toxicity"]["mean"] < 0


def test_names_parameters_and_cost_are_reported(decoded):
    summary, _, folder = decoded
    plain, words, prefix, best, direction, projection = summary["models"]
    names = [model["name"].removeprefix("embedded:policy") for model in summary["models"]]
    assert names[:4] == ["", ", bad words (100)", ", civil prefix", ", best of 4"]
    assert names[4:] == [", direction (strength 2)", ", projection (rank 8)"]
    assert plain["decoding"] == {"name": "plain"}
    assert len(words["decoding"]["banned_words"]) == words["decoding"]["size"] == 100
    assert words["decoding"]["texts"]["toxic"] > 1000
    assert prefix["decoding"]["line"].startswith("The following text is friendly")
    assert (best["decoding"]["name"], best["decoding"]["n"]) == ("best_of_n", 4)
    for model in (direction, projection):
        assert model["decoding"]["texts"] == {"toxic": 100, "civil": 100, "paired": False}
    for model in summary["models"]:
        one = model["sets"]["in_distribution"]
        assert one["generation_seconds"] == pytest.approx(40 * one["seconds_per_response"])
        assert (one["ref_kl"] is None) == (model is not plain)
        kept = round(40 * one["response_tokens"])
        drawn = one["generated_tokens"]
        assert drawn > 3 * kept if model is best else drawn == kept
    page = (folder / "report.html").read_text()
    assert "100 words were made impossible" in page
    assert "8 directions were taken out of the MLP output matrices" in page
    assert "seconds per response" in page


def test_every_model_is_asked_and_scored_on_the_same_prompts(decoded):
    summary, rows, _ = decoded
    by_model = {model["name"]: [] for model in summary["models"]}
    for row in rows:
        by_model[row["model"]].append(row["prompt"])
    plain, *others = by_model.values()
    assert len(plain) == 40
    assert all(prompts == plain for prompts in others)
    assert not any("friendly, polite" in row["prompt"] + row["response"] for row in rows)


def test_plain_numbers_are_those_without_any_decoding(decoded, tmp_path):
    alone = api.run(QUICK, tmp_path / "alone")["models"][0]["sets"]["in_distribution"]
    plain = decoded[0]["models"][0]["sets"]["in_distribution"]
    times = ("generation_seconds", "seconds_per_response")
    assert {k: v for k, v in alone.items() if k not in times} == {
        k: v for k, v in plain.items() if k not in times
    }


def test_banned_words_of_a_file_never_occur(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("Stupid\n\nidiot\n  you   are \nclown\nyou\n")
    hot = ["generation.temperature=2.0", "evaluation.samples_per_prompt=3"]
    folder = tmp_path / "out"
    summary, rows = evaluate(folder, [f"{{name: bad_words, words: {file}}}"], *hot)
    assert summary["models"][1]["name"] == "embedded:policy, bad words (words.txt)"
    banned = ["Stupid", "idiot", "you are", "clown", "you"]
    assert summary["models"][1]["decoding"]["banned_words"] == banned
    texts = {model["name"]: "" for model in summary["models"]}
    for row in rows:
        texts[row["model"]] += " " + " ".join(row["response"].lower().split()) + " |"
    plain, filtered = (f" {''.join(c if c.isalnum() else ' ' for c in t)} " for t in texts.values())
    assert all(f" {word.lower()} " in plain for word in ("stupid", "you", "you are"))
    assert not any(f" {word.lower()} " in filtered for word in banned)


def test_encoder_decoders_are_decoded_too(tmp_path):
    models = ", ".join(f"{{{POLICY}, decoding: {one}}}" for one in ("bad_words", "civil_prefix"))
    overrides = [
        *(one for one in QUICK if not one.startswith("task=")),
        "task=flan_summary",
        "evaluation.prompts=12",
        f"evaluation.models=['embedded:policy', {models}]",
    ]
    summary = api.run(overrides, tmp_path / "out")
    assert len(summary["models"]) == 3
    assert all("rougeL" in model["sets"]["in_distribution"] for model in summary["models"])


def write_adapter(folder, **keys):
    """A LoRA on the miniature GPT-J, as stage=sft writes one."""
    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(embedded_path("gptj"), dtype=torch.float32),
        LoraConfig(r=2, target_modules=["q_proj", "fc_out"], task_type="CAUSAL_LM", **keys),
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def toxic_adapter(tmp_path_factory):
    return write_adapter(tmp_path_factory.mktemp("toxic"))


def test_an_anti_expert_is_asked_at_each_token(toxic_adapter, tmp_path):
    decodings = [
        f"{{name: anti_expert, adapter: {toxic_adapter}, alpha: {alpha}, top_p: {top_p}}}"
        for alpha, top_p in ((1, "null"), (0.000001, "null"), (1, 0.9))
    ]
    summary, rows = evaluate(tmp_path / "out", decodings, "evaluation.prompts=20")
    texts = {model["name"]: [] for model in summary["models"]}
    for row in rows:
        texts[row["model"]].append(row["response"])
    plain, away, near, among = texts.values()
    assert near == plain
    assert away != plain
    assert among != away
    assert "anti-expert (alpha 1)" in summary["models"][1]["name"]


def test_an_adapter_of_another_base_is_refused(toxic_adapter, tmp_path):
    content = json.loads((toxic_adapter / "adapter_config.json").read_text())
    cases = {
        "./none": r"decoding.adapter: ./none has no adapter_config",
        "tensors": "decoding.adapter: the tensors of .* do not fit this gptj model",
        "modules": "decoding.adapter: .*sits on down_proj",
        "whole": "decoding.adapter: .*whole modules; an anti-expert is exchanged",
    }
    for name, changes in (("tensors", {"r": 4}), ("modules", {"target_modules": ["down_proj"]})):
        shutil.copytree(toxic_adapter, tmp_path / name)
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(content | changes))
    write_adapter(tmp_path / "whole", modules_to_save=["lm_head"])
    for name, message in cases.items():
        adapter = name if name.startswith(".") else tmp_path / name
        with pytest.raises(SettingsError, match=message):
            api.run(
                [*QUICK, "decoding=anti_expert", f"decoding.adapter={adapter}"], tmp_path / "out"
            )


def test_more_directions_than_pairs_are_refused(tmp_path):
    overrides = [*QUICK, "decoding=projection", "decoding.rank=9", "decoding.count=8"]
    with pytest.raises(SettingsError, match=r"decoding\.rank: got 9, want at most 8"):
        api.run(overrides, tmp_path / "out")


def test_decodings_of_an_adapter_at_several_strengths_are_refused(toxic_adapter, tmp_path):
    entry = f"{{{POLICY}, adapter: {toxic_adapter}, decoding: direction}}"
    overrides = [*QUICK, f"evaluation.models=[{entry}]", "evaluation.strengths=[0,1]"]
    with pytest.raises(SettingsError, match=r"evaluation.strengths: .* is decoded by direction"):
        api.run(overrides, tmp_path / "out")


def test_a_line_that_does_not_fit_is_refused_before_weights_load(tmp_path):
    line = "word " * 300
    with pytest.raises(SettingsError, match=r"max_query_tokens.*decoding.prefix.*256 positions"):
        api.run([*QUICK, "decoding=civil_prefix", f"decoding.prefix='{line}'"], tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "decoding.examples"),
        ('{"text": "a", "label": 1}\n', "1 toxic and 0 civil texts.*decoding.examples"),
        ('{"titel": "a", "label": 1}\n', "decoding.fields.text"),
        ('{"text": "a b", "label": 1}\n{"text": "a b", "label": 0}\n', "decoding.ratio"),
    ],
)
def test_examples_that_cannot_be_used(tmp_path, content, message):
    file = tmp_path / "rows.jsonl"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        api.run([*QUICK, "decoding=bad_words", f"decoding.examples={file}"], tmp_path / "out")


def test_pairs_of_texts_are_examples_too(tmp_path):
    file = tmp_path / "pairs.jsonl"
    rows = [
        {"toxic": "what a stupid idea", "neutral": ["what a poor idea", "no"]},
        {"toxic": "stupid words", "neutral": "words"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    overrides = [*QUICK, "decoding=bad_words", "decoding.ratio=1", "evaluation.prompts=5"]
    overrides.append(f"decoding.examples={file}")
    decoding = api.run(overrides, tmp_path / "out")["models"][0]["decoding"]
    assert decoding["banned_words"] == ["stupid"]
    assert decoding["texts"] == {"toxic": 2, "civil": 2, "paired": True}
