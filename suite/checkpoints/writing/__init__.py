"""A pruned checkpoint is made: pruned under the clock, written, and read again."""
