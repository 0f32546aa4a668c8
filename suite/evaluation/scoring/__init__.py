"""Forward passes over known tokens: losses, divergence from the dense model, answers."""
