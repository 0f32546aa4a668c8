"""Experiment trackers that are told of a run."""
