"""Where decoder layers are while a model is pruned: on the device, in the host's memory, or in files."""
