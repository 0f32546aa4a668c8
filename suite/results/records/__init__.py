"""Records and the tree that stores them: fields, reading, writing, and the state of a cell in a tree."""
