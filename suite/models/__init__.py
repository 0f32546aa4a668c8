"""Finds, checks and loads models, whole or layer by layer, and restores their dense weights."""
