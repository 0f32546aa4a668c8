"""Tasks for lm-eval that need no hub: one YAML file per task, and the code that builds its questions."""
