"""Experiment trackers that log the records of a run."""

from suite.tracking.tracker import Ending, SuiteRun, Tracker, Tracking, open_tracker, trackers

__all__ = ["Ending", "SuiteRun", "Tracker", "Tracking", "open_tracker", "trackers"]
