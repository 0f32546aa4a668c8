"""Updates, which change the surviving weights to compensate for the pruned ones."""
