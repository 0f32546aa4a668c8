"""Experiment trackers that are told of a run."""

from suite.tracking.tracker import Ending, SuiteRun, Tracker, Tracking, open_tracker, trackers

__all__ = ["Ending", "SuiteRun", "Tracker", "Tracking", "open_tracker", "trackers"]
