"""What a model is made of: decoder layers, blocks, target matrices, experts."""
