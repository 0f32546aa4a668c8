"""Tokens per second of a model, and the machine's own speed, measured in the same run."""
