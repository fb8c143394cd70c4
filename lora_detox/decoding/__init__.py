"""What a user would try before training: how a model writes, changed while it writes.

Each is a `Generate` of `rollout`: it answers prompts in place of `generate_responses`, on the same
sessions, and what it changes is undone before anything is scored.

Files: `word_ban` and `fighting_words` (a filter of bad words, and which they are), `prefix` (a
civil line before each prompt), `best_of_n` (the reward chooses), `anti_expert` (logits away from
those of a toxic LoRA), `states`, `direction` and `projection` (what of toxic texts shows in states,
and how it leaves them), `contexts` (what holds while a policy writes). docs/decoding.md says where
each comes from and what it costs.
"""
