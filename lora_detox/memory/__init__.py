"""Predicted peak memory of a run, without loading weights."""
