"""Decides what may be compared with what, and ranks it; independent of how the results are shown."""
