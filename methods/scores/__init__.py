"""What chooses a mask: a score of each weight, compared inside groups; some recompute weights with it."""
