"""How long an iteration will take, from the real phases timed on a model of fewer layers."""
