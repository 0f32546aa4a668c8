"""Measures models, dense or pruned."""
