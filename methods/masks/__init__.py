"""Which weights survive: sparsity patterns, the exact choice of what they remove, and packed masks."""
