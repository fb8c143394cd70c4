"""Methods other than the main path: supervised fine-tuning, best-of-n, TRL's trainers."""
