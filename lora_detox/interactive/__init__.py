"""Trying a finished run out: prompts that a person types, in a terminal or a browser."""
