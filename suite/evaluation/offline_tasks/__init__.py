"""Tasks for lm-eval that need no hub: a YAML file each, and what makes their questions."""
