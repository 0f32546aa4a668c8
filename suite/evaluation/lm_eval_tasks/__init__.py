"""Loads and checks lm-eval's tasks, and scores them on the model in memory."""
