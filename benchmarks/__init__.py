"""What pruning costs: the floor, computed; methods timed against it; the same on a GPU (README.md)."""
