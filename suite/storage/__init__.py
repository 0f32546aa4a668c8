"""Files and folders that are there whole or not at all, and processes that share the reading of many."""
