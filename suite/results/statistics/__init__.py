"""Estimates with intervals, of one model and of two on the same items."""
