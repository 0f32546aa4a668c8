"""What is measured of a model, dense or pruned."""
