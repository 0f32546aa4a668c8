"""Rankings over several models: their rule, costs and tables."""
