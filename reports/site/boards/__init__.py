"""Rankings over models: the rule, its costs, and its tables."""
