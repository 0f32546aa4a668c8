"""lm-eval's tasks: named, loaded, checked and scored on the model in memory."""
