"""Tokens per second of a model, and what the machine can do beside them."""
