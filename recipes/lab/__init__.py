"""What the recipes share: a queue of runs, their jobs, their judged results and how they are kept.

process.py     fresh processes, from the top of the checkout
queue.py       a queue of runs that can be stopped and continued
job.py         one job in one process: write prompts, train, evaluate
options.py     the options that the queues' command lines have in common
overrides.py   the lab's models, prompts and scorers as overrides of a run
bench.py       a base with its scorers, prompts and judged sets
comparison.py  runs of methods on one bench
real.py        pretrained models, their classifiers, and the continuation task on them
goals.py       bounds that results are held to;  goal_table.py  the table and picture of them
judged.py      responses as columns of numbers, and changes with intervals
store.py       results as JSON beside a recipe
tables.py      Markdown of tables and samples;  sweep_table.py  the table of a sweep
checkout.sh    the same models, prompts and scorers for recipes that are shell scripts
random_adapter.py  a random adapter as large as a trained one: a control
toxic_texts.py  toxic texts as prompts with their continuations, which a toxic LoRA learns
random_models.py  random weights in the shapes of hub models
peer_ppo.py    TRL 0.11.4's PPOTrainer, run by an interpreter of its own
"""
