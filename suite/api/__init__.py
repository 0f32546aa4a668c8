"""The Python API: `run_suite`, `prune_checkpoint`, `evaluate_checkpoint`."""
