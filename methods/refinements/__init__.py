"""What changes a mask that is there: swaps of pruned for kept weights, as pure tensor functions."""
