"""Finished checkpoints: written, read, measured and verified."""
