# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Which adapter is ahead of query and value over both models: python -m recipes.which_lora.both.

Reads the `results.json` of `recipes.which_lora.run` for both models in `runs/which_lora` (`--out
DIR`, with the sizes of those runs), and runs nothing.
"""

from recipes.lab.tables import markdown_table
from recipes.which_lora.run import arguments, sizes_of
from recipes.which_lora.table import beside_query_and_value, points, read_all
from recipes.which_lora.variants import QUERY_VALUE, variants

MODELS = ("smollm2", "t5_summary")


def main() -> None:
    """Print one row per variant."""
    given = arguments()
    found = {model: read_all(given.out.parent / model, model, sizes_of(given)) for model in MODELS}
    rows = []
    for name, variant in variants(MODELS[0]).items():
        pairs = [
            None if base is None else beside_query_and_value(name, trained, base)
            for base, trained in found.values()
        ]
        if name != QUERY_VALUE:
            rows.append([variant.label, *(points([one]) for one in pairs), points(pairs)])
    heads = ["beside query and value, judge toxicity in points [95 %]", *MODELS, "mean of both"]
    print(markdown_table(heads, rows))


if __name__ == "__main__":
    main()
