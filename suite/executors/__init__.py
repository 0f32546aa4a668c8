"""Executors, which run the cells of a plan: in this process, in several, or on a Ray cluster."""
