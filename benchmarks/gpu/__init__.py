"""One command for a machine with a CUDA GPU and no network: `python -m benchmarks.gpu` (README.md).

Its timing stages import torch, transformers, numpy and psutil, the methods and the standard library alone.
"""
