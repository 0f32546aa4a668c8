"""Runs cells and makes a record of each; reruns cells of existing records."""
