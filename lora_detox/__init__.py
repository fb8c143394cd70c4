"""Detoxify language models by reinforcement learning on LoRA adapters.

Data goes one way, and the packages show it:

    prompts -> rollout -> scores -> advantages -> update -> metrics -> report

`stages/detox.py` is the main path; `policy/` is what generates; `conf/` composes a run.
"""

__version__ = "0.1.0"
