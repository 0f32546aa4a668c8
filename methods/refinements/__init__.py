"""Refinements, which improve an existing mask by swapping pruned and kept weights: pure tensor functions."""
