"""What `stage=` names: one module each, with a function `run(settings)`; they wire the arrow."""
