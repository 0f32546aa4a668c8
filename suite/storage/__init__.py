"""Atomic writes of files and folders, and worker processes that read many files in parallel."""
