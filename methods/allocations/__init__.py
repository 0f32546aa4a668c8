"""How the sparsity of a model is spread over its target modules: one file for each allocation."""
