"""What methods are compared on: a base with its scorers and prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

from recipes.lab.overrides import BASE, CIVIL, REWARD, continuation
from recipes.lab.real import RealModels
from recipes.lab.real import continuation as real_continuation


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A base with its scorers and prompts, as overrides and as the peer is told them.

    Attributes:
        base: folder of the policy.
        reward: folder of the reward's classifier.
        civil: name of its civil label.
        task: overrides of every run: policy, reward, judge, prompts.
        training: further ones of every training.
        targets: what the peer's adapters sit on: names of modules by comma, or all-linear.
    """

    base: str
    reward: str
    civil: str
    task: Sequence[str]
    training: Sequence[str] = ()
    targets: str = "q_proj,v_proj"


def lab_bench(shared: str) -> Bench:
    """The lab's GPT-J.

    Args:
        shared: folder of corpora and models.
    """
    return Bench(
        base=f"{shared}/{BASE}",
        reward=f"{shared}/{REWARD}",
        civil=CIVIL,
        task=continuation(shared),
    )


def smollm2_bench(models: RealModels, shared: str) -> Bench:
    """SmolLM2-135M with the classifiers of recipes/real_classifiers, LoRA on all linear layers.

    Args:
        models: folders of the models.
        shared: folder of the corpora.
    """
    return Bench(
        base=str(models.policy),
        reward=str(models.classifier("reward")),
        civil=CIVIL,
        task=real_continuation(models, shared),
        training=["adapter.targets=[all-linear]"],
        targets="all-linear",
    )
