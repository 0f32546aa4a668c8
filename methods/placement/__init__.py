"""Placement of decoder layers while a model is pruned: on the device, in host memory, or in files."""
