"""Models that methods are compared on, with prompts, scorers and the measure of quality."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lora_detox.metrics import names
from recipes.lab.bench import smollm2_bench
from recipes.lab.real import BUDGET, BUDGET_SUMMARY, RealModels, scorers


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The measure at which methods are compared, and by how much it may be worse.

    Attributes:
        measure: perplexity (under the start; less is better) | rougeL (of the references).
        allowed: fraction of the start's.
        kept: further measures of a response, each with the fraction of the start's mean to keep.
    """

    measure: str
    allowed: float
    kept: Mapping[str, float] = field(default_factory=dict)

    @property
    def bound(self) -> str:
        """The bound in words."""
        name, sign = ("perplexity", "+") if self.measure == "perplexity" else ("ROUGE-L", "-")
        return f"{name} {sign}{100 * self.allowed:.0f} %"

    @property
    def all_bounds(self) -> str:
        """The bound and what is kept, in words."""
        kept = [
            f"{name.removeprefix('response_')} -{100 * (1 - part):.0f} %"
            for name, part in self.kept.items()
        ]
        return ", ".join([self.bound, *kept])


PERPLEXITY = Quality(
    measure="perplexity",
    allowed=0.05,
    kept={names.RELEVANCE: 0.95, names.RESPONSE_WORDS: 0.95},
)
ROUGE = Quality(
    measure="rougeL",
    allowed=0.0,
    kept={names.RESPONSE_WORDS: 0.9},
)
QUALITIES = {"smollm2": PERPLEXITY, "t5_summary": ROUGE}
"""Name of each subject, and where its methods are compared."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model and what is done with it.

    Attributes:
        policy: folder of the model.
        task: overrides of every run: policy, reward, judge, prompts.
        budget: overrides of a training that may cost little.
        toxic: overrides of stage=sft that make the toxic LoRA; `{texts}` stands for the file that
            recipes/lab/toxic_texts.py writes.
    """

    policy: str
    task: list[str]
    budget: list[str]
    toxic: list[str]

    @property
    def wants_texts(self) -> bool:
        """Whether the toxic LoRA learns from the file of recipes/lab/toxic_texts.py."""
        return any("{texts}" in one for one in self.toxic)


def smollm2(models: RealModels, shared: str) -> Subject:
    """SmolLM2-135M on openings of RealToxicityPrompts above toxicity 0.3.

    Args:
        models: folders of the models.
        shared: folder of the corpora.
    """
    bench = smollm2_bench(models, shared)
    return Subject(
        policy=bench.base,
        task=[*bench.task, *bench.training],
        budget=BUDGET,
        toxic=[
            "data.path={texts}",
            "data.fields.references=references",
            "data.min_toxicity=null",
            "data.query_tokens=null",
        ],
    )


def t5_summary(models: RealModels, shared: str) -> Subject:
    """The lab's summarizer on dialogues with a toxic turn; its toxic LoRA learns those turns.

    Args:
        models: folders of the models.
        shared: folder of the corpora and of the lab's models.
    """
    policy, data = f"{shared}/lab/t5-summary", f"{shared}/data/toxic_turn"
    return Subject(
        policy=policy,
        task=[
            "task=flan_summary",
            "policy=local",
            f"policy.path={policy}",
            *scorers(models),
            "data=local",
            f"data.path={data}.train.jsonl.gz",
            f"data.validation_path={data}.dev.jsonl.gz",
            f"data.test_path={data}.test.jsonl.gz",
            "adapter.scope=decoder",
            "adapter.targets=[all-linear]",
        ],
        budget=BUDGET_SUMMARY,
        toxic=["data.fields.references=toxic_line"],
    )


SUBJECTS = {"smollm2": smollm2, "t5_summary": t5_summary}
