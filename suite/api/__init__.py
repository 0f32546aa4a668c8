"""The way in from Python: `run_suite`, `prune_checkpoint`, `evaluate_checkpoint`."""
