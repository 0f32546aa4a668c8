"""Makes a pruned checkpoint: prunes under the clock, writes, and reads back."""
