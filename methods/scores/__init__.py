"""Scores, which choose a mask by comparing weights within groups; some also compute new weights."""
