"""The structure of a model: decoder layers, blocks, target matrices, experts."""
