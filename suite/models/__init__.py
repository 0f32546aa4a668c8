"""Models: found, checked, loaded whole or layer by layer, and brought back to their dense weights."""
