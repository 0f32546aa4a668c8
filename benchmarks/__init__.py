"""Measures the cost of pruning: computed floors, methods timed against them, and the same on a GPU
(README.md).
"""
