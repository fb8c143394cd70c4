"""What is compared: methods that train an adapter, and methods that change how tokens are drawn."""

from dataclasses import dataclass

STRENGTHS = "[0.5,1,1.5,2,3]"
"""Of an adapter that learned to be civil; every curve begins with the base."""
NEGATED = "[-0.5,-1,-1.5,-2]"
"""Of one that learned to be toxic."""
PREFIX_CREDIT = [
    "algorithm=ppo",
    "algorithm.ppo_epochs=2",
    "algorithm.learning_rate=5e-4",
    "algorithm.schedule=linear",
    "algorithm.average=0.9",
    "algorithm.expert.prefix_credit_every=2",
    "algorithm.kl.charge=k3_loss",
    "algorithm.kl.control=fixed",
    "algorithm.kl.coef=0.05",
]

OURS_NAME = "ppo_credit"
"""Method that the others are compared with, and whose adapters the random ones are as large as."""


def trained(model: str, budget: list[str]) -> dict[str, list[str]]:
    """Methods that train, by name, with their overrides; the rest is the default of the algorithm.

    Ours stay within a budget. They ship the end of the training, as the frontier chooses the
    strength.

    Args:
        model: of `recipes.lab.subjects.SUBJECTS`; TRL trains decoder-only models alone.
        budget: its overrides.

    Returns:
        Name -> overrides beside those of every training.
    """
    held = [*budget, "budget.ship=end"]
    best = [*PREFIX_CREDIT, *held]
    methods = {
        OURS_NAME: best,
        "ppo": ["algorithm=ppo", *held],
        "rloo": ["algorithm=rloo", *held],
        "grpo": ["algorithm=grpo", *held],
        "best_of_n_sft": ["algorithm=best_of_n"],
        "control_constant": [*best, "reward=constant"],
        "control_length": [*best, "reward=length"],
    }
    if model == "smollm2":
        methods |= {
            "trl_dpo": ["algorithm=trl_dpo", "algorithm.learning_rate=1e-3"],
            "trl_grpo": ["algorithm=trl_grpo"],
            "trl_rloo": ["algorithm=trl_rloo"],
        }
    return methods


NEGATED_LORA, RANDOM = "negated_toxic_lora", "control_random"
"""Fine-tuned on toxic text and subtracted; an adapter of the norms of ppo_credit's."""
PEER = "trl_classic_ppo"
"""TRL 0.11.4's PPOTrainer, where its environment is given."""


@dataclass(frozen=True, kw_only=True)
class Knob:
    """What makes a decoding stronger.

    Attributes:
        key: of the group `decoding`; empty where there is none.
        values: settings of it, from weak to strong.
        fixed: further keys of the group.
    """

    key: str = ""
    values: tuple[float, ...] = (1,)
    fixed: tuple[str, ...] = ()


DECODED: dict[str, Knob] = {
    "bad_words": Knob(key="size", values=(25, 100, 400, 1600)),
    "civil_prefix": Knob(),
    "best_of_n": Knob(key="n", values=(2, 4, 16)),
    "anti_expert": Knob(key="alpha", values=(0.5, 1, 2, 4)),
    "direction": Knob(key="strength", values=(0.25, 0.5, 1, 2, 4)),
    "projection": Knob(key="rank", values=(1, 2, 4, 8, 16)),
}
"""Name of the decoding -> its frontier."""
FROM_PAIRS = ("direction", "projection")
"""These read pairs of a toxic sentence and its civil rewrite."""
OURS = (OURS_NAME, "ppo", "rloo", "grpo")
ADAPTERS = (
    "best_of_n_sft",
    "trl_dpo",
    "trl_grpo",
    "trl_rloo",
    PEER,
    NEGATED_LORA,
)
"""Further methods that train an adapter."""
CONTROLS = ("control_constant", "control_length", "control_random")

LABELS = {
    "ppo_credit": "PPO with credit by prefixes, within the budget (ours)",
    "ppo": "PPO within the budget (ours)",
    "rloo": "RLOO within the budget (ours)",
    "grpo": "GRPO within the budget (ours)",
    "best_of_n_sft": "SFT on the best of 4",
    "trl_dpo": "DPO on own pairs (TRL)",
    "trl_grpo": "GRPO (TRL)",
    "trl_rloo": "RLOO (TRL)",
    "trl_classic_ppo": "PPO (TRL 0.11.4)",
    "negated_toxic_lora": "toxic LoRA, negated",
    "bad_words": "bad-word filter",
    "civil_prefix": "civil prefix",
    "best_of_n": "best of n at decoding",
    "anti_expert": "anti-expert (DExperts)",
    "direction": "one direction, last layer",
    "projection": "projection (ProFS)",
    "control_constant": "control: constant reward",
    "control_length": "control: length reward",
    "control_random": "control: random adapter",
}
"""As table and picture name them."""
