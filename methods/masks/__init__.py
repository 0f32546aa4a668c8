"""Sparsity patterns, the exact selection of the weights that they remove, and packed masks."""
