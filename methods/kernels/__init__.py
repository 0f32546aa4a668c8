"""Kernels for GPUs, in Triton; each has a plain twin in torch that computes the same wherever torch runs."""
