PATIENCE_S = 1200
"""So long a test waits for a process or a file: it tells what hangs from a machine that is slow or busy."""
