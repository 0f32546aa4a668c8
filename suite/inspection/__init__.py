"""Inspects the machine, the structure of models, and whether a method keeps its contract."""
