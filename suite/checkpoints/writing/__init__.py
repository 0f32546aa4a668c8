"""Makes a pruned checkpoint: prunes and measures costs, writes, and reads back."""
