"""Writes, measures and verifies checkpoints."""
