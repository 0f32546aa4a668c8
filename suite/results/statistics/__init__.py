"""Estimates with intervals for one model, and for two models on the same items."""
