"""Allocations, which spread a model's sparsity over its target modules; one file per allocation."""
