"""What changes the weights that survive, so that they make up for those that go."""
