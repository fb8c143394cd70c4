"""Studies of Optuna over settings: toxicity against quality, pruned, kept and gone on with.

`space` reads what is chosen from, `options` what a study is like, `study` keeps its trials, and
`sweeper` runs them by Hydra's launchers. `hydra_plugins/lora_detox_optuna` shows it to Hydra.
"""
