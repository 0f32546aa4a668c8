"""Records and the tree they are stored in: fields, reading, writing, and what a tree holds for a cell."""
