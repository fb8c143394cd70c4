"""The adapters that are compared: where they sit, their rank, and what kind they are."""

from dataclasses import dataclass

MODULES = {
    "smollm2": {
        "attention": "[q_proj,k_proj,v_proj,o_proj]",
        "mlp": "[gate_proj,up_proj,down_proj]",
    },
    "t5_summary": {"attention": "[q,k,v,o]", "mlp": "[wi_0,wi_1,wo]"},
}
"""Model -> names of the linear layers of its attention and of its MLPs."""
RANK = 16
"""Where rank is not the question. Alpha is 32; 8 with rslora: twice the scale at rank 64."""
QUERY_VALUE = "query_value"
"""The adapter beside which the others are put; it was the default until docs/decisions/0031."""
MISS = "miss"
"""The kind that `adapter=` does not make; recipes/lab/fresh_adapter.py writes its start."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One adapter.

    Attributes:
        label: as the table names it.
        overrides: beside those of every training.
    """

    label: str
    overrides: list[str]


def variants(model: str) -> dict[str, Variant]:
    """Name -> adapter; query and value first.

    Args:
        model: of `recipes.lab.subjects.SUBJECTS`.
    """
    everything = "adapter.targets=[all-linear]"
    modules = MODULES[model]

    def one(label: str, *overrides: str) -> Variant:
        return Variant(label=label, overrides=[f"adapter.rank={RANK}", *overrides])

    ranks = {
        f"rank_{rank}": Variant(
            label=f"all linear layers, rank {rank}", overrides=[everything, f"adapter.rank={rank}"]
        )
        for rank in (4, 64)
    }
    return {
        QUERY_VALUE: one("query and value", "adapter.targets=[]"),
        "attention": one("attention", f"adapter.targets={modules['attention']}"),
        "mlp": one("MLP", f"adapter.targets={modules['mlp']}"),
        "all_linear": one("all linear layers", everything),
        **ranks,
        "rslora": Variant(  # at rank 16 it would be the same training
            label="all linear layers, rank 64, rslora",
            overrides=["adapter=rslora", everything, "adapter.rank=64"],
        ),
        "dora": one("all linear layers, DoRA", "adapter=dora", everything),
        MISS: one("all linear layers, MiSS", everything),
    }
