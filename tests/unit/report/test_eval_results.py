"""The hub's own format of figures, read back by the hub's own package."""

from dataclasses import replace

import yaml
from huggingface_hub import parse_eval_result_entries

from lora_detox.metrics import names
from lora_detox.report.card import CardFacts
from lora_detox.report.eval_results import eval_results_yaml

FACTS = CardFacts(
    name="user/adapter",
    base="user/base",
    base_revision=None,
    base_on_hub=True,
    encoder_decoder=False,
    data="allenai/real-toxicity-prompts",
    data_on_hub=True,
    license=None,
    settings=[],
)
SUMMARY = {
    "before": {"toxicity": {"mean": 0.4, "n": 8}},
    "after": {"toxicity": {"mean": 0.2, "n": 8}, "perplexity": {"mean": 31.5}},
    "scorers": {"reward": "user/classifier@abc"},
}


def test_figures_after_training_are_read_by_the_hub_s_package():
    text = eval_results_yaml(replace(FACTS, strength=0.8), SUMMARY, names.METRICS, "user/adapter")
    entries = parse_eval_result_entries(yaml.safe_load(text))
    assert {one.dataset_id for one in entries} == {"allenai/real-toxicity-prompts"}
    assert {one.task_id: one.value for one in entries} == {"toxicity": 0.2, "perplexity": 31.5}
    toxicity = next(one for one in entries if one.task_id == "toxicity")
    assert toxicity.notes == (
        "Toxicity by user/classifier@abc, 8 responses to held-out prompts, strength 0.8"
    )
    assert toxicity.source_url == "https://huggingface.co/user/adapter"


def test_no_file_where_the_hub_has_no_such_data_or_the_strength_was_not_measured():
    for facts in (replace(FACTS, data_on_hub=False), replace(FACTS, measured=False)):
        assert eval_results_yaml(facts, SUMMARY, names.METRICS, None) is None
    assert eval_results_yaml(FACTS, {}, names.METRICS, None) is None
