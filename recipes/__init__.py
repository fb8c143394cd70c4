"""Reproducible results, run from the top of the checkout: `python -m recipes.NAME.run`."""
