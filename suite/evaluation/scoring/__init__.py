"""Scoring by forward passes: losses, divergence from the dense model, answers."""
