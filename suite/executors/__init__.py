"""Where the cells of a plan run: in this process, in several, or on a Ray cluster."""
