"""One command for a machine with a CUDA GPU and without network: `python -m benchmarks.gpu` (README.md).

Its timing stages import only torch, transformers, numpy and psutil, the methods and the standard library.
"""
