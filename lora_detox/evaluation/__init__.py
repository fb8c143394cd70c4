"""Fixed prompts, seeds and scorers -> what a model's responses are like."""
