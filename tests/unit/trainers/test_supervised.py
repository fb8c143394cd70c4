"""stage=sft and stage=reward_model: what they write is what stage=detox reads."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments

from lora_detox import api
from lora_detox.builders.examples import training_examples
from lora_detox.embedded import embedded_path
from lora_detox.errors import DataError, ScorerError, SettingsError
from lora_detox.policy.adapter import NO_ADAPTER
from lora_detox.policy.loading import load_policy
from lora_detox.policy.preflight import BackbonePlan
from lora_detox.prompts import PromptRow
from lora_detox.scores import ClassifierScorer, probe_scorer
from lora_detox.trainers.lengths import EpochSampler, grouped_by_length, row_lengths
from lora_detox.trainers.supervised import mean_loss
from tests.runs import SMOKE
from tests.tiny import tiny_tokenizer

SFT = [
    "stage=sft",
    "threads=1",
    "debug=smoke",
    "evaluation.test_prompts=8",
    "generation.response_tokens=[4,8]",
    "sft.max_steps=12",
    "sft.learning_rate=0.02",
    "sft.batch_size=4",
    "sft.log_every=4",
    "adapter.targets=[all-linear]",
    "checkpoint.every=0",
]


@pytest.mark.training
@pytest.mark.parametrize(
    ("task", "fields"),
    [
        ("flan_summary", "data.fields.references=summaries"),
        ("gptj_continuation", "data.fields.references=null"),
    ],
)
def test_rl_starts_from_the_adapter_that_sft_wrote_with_kl_0(task, fields, tmp_path):
    summary = api.run([*SFT, f"task={task}", fields], tmp_path / "sft")
    assert summary["stage"] == summary["algorithm"] == "sft"
    assert summary["iterations"] == 12
    assert summary["loss"]["after"] < summary["loss"]["before"]
    assert summary["parameters"]["base_unchanged"]
    assert {"toxicity", "response_tokens"} <= set(summary["after"])
    rows = (tmp_path / "sft" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["iteration"] for row in rows][:4] == [0, 4, 8, 12]

    tiny = tmp_path / "sft" / "tiny_model"
    start = [f"task={task}", *SMOKE[:-1], "debug.tiny_model=false", "policy=local", "budget=off"]
    adapter = tmp_path / "sft" / "adapter"
    paths = [f"policy.path={tiny}", f"policy.adapter={adapter}", "checkpoint.every=0"]
    rl = api.run([*start, *paths, "algorithm.iterations=1"], tmp_path / "rl")
    first = json.loads((tmp_path / "rl" / "metrics.jsonl").read_text().splitlines()[1])
    assert abs(first["ref_kl"]) < 1e-4
    assert rl["before"]["response_tokens"] == pytest.approx(summary["after"]["response_tokens"])


def settings_for(task="gptj_continuation"):
    return api.compose_settings([f"task={task}", "task.template='{prompt}'", "stage=sft"])


def row(prompt, *references):
    return PromptRow(row_id="r", prompt=prompt, references=list(references), toxicity=None)


def test_examples_hold_what_is_learned_and_end_with_eos():
    tokenizer, settings = tiny_tokenizer(), settings_for()
    rows = [row("w5", "w7", "w8"), row("w3")]
    decoder = training_examples(rows, tokenizer, settings, encoder_decoder=False)
    assert decoder == [
        {"input_ids": [5, 7, 1], "completion_mask": [0, 1, 1]},
        {"input_ids": [5, 8, 1], "completion_mask": [0, 1, 1]},
        {"input_ids": [3, 1], "completion_mask": [1, 1]},
    ]
    encoder = training_examples(rows, tokenizer, settings, encoder_decoder=True)
    assert encoder == [{"input_ids": [5], "labels": [7, 1]}, {"input_ids": [5], "labels": [8, 1]}]
    with pytest.raises(DataError, match=r"no row has one.*data\.fields\.references"):
        training_examples([row("w5")], tokenizer, settings, encoder_decoder=True)


@pytest.mark.parametrize("architecture", ["t5", "gptj"])
def test_the_mean_loss_does_not_depend_on_the_batch(architecture):
    policy = load_policy(BackbonePlan(path=str(embedded_path(architecture))), NO_ADAPTER)
    settings = settings_for("flan_summary" if architecture == "t5" else "gptj_continuation")
    rows = [row("Hello there you", "A short one."), row("Again", "A rather longer one it is.")]
    encoder_decoder = architecture == "t5"
    examples = training_examples(rows, policy.tokenizer, settings, encoder_decoder=encoder_decoder)
    together = mean_loss(policy, examples, 2)
    assert mean_loss(policy, examples, 1) == pytest.approx(together, rel=1e-4)
    assert together > 0


REWARD_MODEL = [
    "stage=reward_model",
    "data=embedded_labelled",
    "threads=1",
    "reward_model.max_steps=3",
    "data.limit=64",
]


@pytest.mark.training
@pytest.mark.parametrize("training", ["full", "lora"])
def test_a_fine_tuned_classifier_keeps_its_labels_and_serves_as_reward(training, tmp_path):
    rows = [
        {"text": f"The {who} came by number {i}.", "label": i % 2, "target": who}
        for i in range(50)
        for who in ("nun", "guest")
    ]
    file = tmp_path / "more.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in [*rows, {"text": "no label"}]))
    overrides = [
        *REWARD_MODEL,
        f"reward_model.training={training}",
        f"reward_model.test_sets.more={file}",
        "reward_model.path=embedded:judge",  # its labels are toxic=0, neutral=1
        "reward_model.labels=[neutral,toxic]",
    ]
    summary = api.run(overrides, tmp_path / "out")
    assert summary["labels"] == {"0": "toxic", "1": "neutral"}
    assert summary["civil"] == "neutral"
    for when in ("before", "after"):
        figures = summary[when]["test"]
        assert {"accuracy", "f1", "auc", "calibration_error", "brier"} <= set(figures)
        assert figures["auc"] > 0.95
        assert summary[when]["more"]["identity_gap"]["identities"] == 2
        assert summary[when]["more"]["n"] == 100
    scorer = ClassifierScorer(str(tmp_path / "out" / "classifier"), device=torch.device("cpu"))
    assert probe_scorer(scorer).civil_score > probe_scorer(scorer).toxic_score
    assert "identity gap" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.training
def test_frozen_layers_stay_and_a_new_head_has_its_labels_in_the_order_asked_for(tmp_path):
    overrides = [
        *REWARD_MODEL,
        "reward_model.frozen_layers=1",
        "reward_model.dtype=bfloat16",
        "reward_model.group_by_length=true",
        "reward_model.new_head=true",
        "reward_model.labels=[fine,foul]",
        "reward_model.civil_index=1",
        "reward_model.learning_rate=1e-3",
        "reward.probe=false",
    ]
    summary = api.run(overrides, tmp_path / "out")
    assert summary["labels"] == {"0": "foul", "1": "fine"}
    assert summary["civil"] == "fine"
    start = load_file(Path(embedded_path("reward")) / "model.safetensors")
    trained = load_file(tmp_path / "out" / "classifier" / "model.safetensors")
    moved = {
        name for name, weight in trained.items() if not torch.equal(weight, start[name].float())
    }
    assert not {name for name in moved if ".embeddings." in name or ".layer.0." in name}
    assert any(".layer.1." in name for name in moved)
    assert {str(weight.dtype) for weight in trained.values()} == {"torch.float32"}


def test_an_epoch_has_every_row_once_in_an_order_of_seed_and_epoch():
    lengths = torch.randint(3, 90, (500,), generator=torch.Generator().manual_seed(0)).tolist()
    orders = {}
    for epoch in (0, 1):
        sampler = EpochSampler(8, lengths, seed=3)
        sampler.set_epoch(epoch)
        orders[epoch] = list(sampler)
        assert sorted(orders[epoch]) == list(range(500))
        batches = [[lengths[row] for row in orders[epoch][i : i + 8]] for i in range(8, 496, 8)]
        assert sum(max(one) - min(one) for one in batches) / len(batches) < 10
        again = EpochSampler(8, lengths, seed=3)
        again.set_epoch(epoch)
        assert list(again) == orders[epoch]
    assert orders[0] != orders[1]


def test_a_target_counts_into_the_length_of_its_row_and_a_class_does_not():
    ids = [[1, 2, 3], [1]]
    assert row_lengths({"input_ids": ids}) == [3, 1]
    assert row_lengths({"input_ids": ids, "labels": [0, 1]}) == [3, 1]
    assert row_lengths({"input_ids": ids, "labels": [[7], [7, 8, 9, 1]]}) == [4, 5]


def test_batches_hold_rows_of_like_length_where_that_is_asked_for(tmp_path):
    rows = [{"input_ids": [1] * (5 + 31 * n % 60)} for n in range(160)]

    def padded(kind):
        trainer = kind(
            model=torch.nn.Linear(1, 1),
            args=TrainingArguments(
                str(tmp_path),
                per_device_train_batch_size=8,
                use_cpu=True,
                report_to=[],
                remove_unused_columns=False,
                data_seed=0,
            ),
            train_dataset=Dataset.from_list(rows),
            data_collator=lambda batch: {"lengths": [len(one["input_ids"]) for one in batch]},
        )
        batches = [batch["lengths"] for batch in trainer.get_train_dataloader()]
        assert sum(map(len, batches)) == 160
        return sum(max(one) * len(one) - sum(one) for one in batches)

    assert padded(grouped_by_length(Trainer)) < 0.5 * padded(Trainer)


@pytest.mark.parametrize(
    ("changes", "error", "expected"),
    [
        (["reward_model.frozen_layers=9"], SettingsError, r"frozen_layers: got 9, want at most"),
        (["reward_model.labels=[good,bad]"], ScorerError, r"nothate, hate.*reward_model\.labels"),
        (["reward_model.labels=[one]"], SettingsError, r"want two names"),
        (["data.fields.toxicity=null"], DataError, r"data\.fields\.toxicity"),
        (["reward_model.path=./nowhere"], ScorerError, r"reward_model\.path"),
        (["reward_model.test_sets.x=none.jsonl"], DataError, r"reward_model\.test_sets\.x"),
    ],
)
def test_what_a_reward_model_refuses_before_weights_load(changes, error, expected, tmp_path):
    with pytest.raises(error, match=expected):
        api.run([*REWARD_MODEL, *changes], tmp_path / "out")
    assert not (tmp_path / "out" / "classifier").exists()
