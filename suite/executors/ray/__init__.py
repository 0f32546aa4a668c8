"""Runs cells on the machines of a Ray cluster."""
