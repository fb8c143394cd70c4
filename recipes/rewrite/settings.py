"""Overrides that every stage of the recipe shares: policy, pairs, reward, judge."""

from pathlib import Path

from recipes.lab.real import RealModels
from recipes.rewrite.texts import Texts


def fluency_folder(out: Path) -> Path:
    """The classifier of fluent text that the recipe trains."""
    return out / "fluency" / "classifier"


def scoring(models: RealModels, out: Path) -> list[str]:
    """Overrides of reward and judge: J by one classifier, and another one that judges.

    Args:
        models: folders of the models.
        out: folder of the results, with the fluency classifier.

    Returns:
        The overrides.
    """
    return [
        "reward=local",
        f"reward.path={models.classifier('reward')}",
        "reward.label=nothate",
        f"reward.encoder={models.encoder}",
        "reward.terms.fluency=1",
        "budget.similarity=0",
        f"reward.fluency.path={fluency_folder(out)}",
        "judge=local",
        f"judge.path={models.classifier('judge')}",
        "judge.label=neutral",
    ]


def rewriting(models: RealModels, texts: Texts, out: Path) -> list[str]:
    """Overrides of task=rewrite on SmolLM2-135M.

    Args:
        models: folders of the models.
        texts: files of pairs.
        out: folder of the results.

    Returns:
        The overrides.
    """
    return [
        "task=rewrite",
        "policy=local",
        f"policy.path={models.policy}",
        *scoring(models, out),
        "data=local",
        f"data.path={texts.pairs('train')}",
        f"data.validation_path={texts.pairs('validation')}",
        f"data.test_path={texts.pairs('test')}",
    ]
