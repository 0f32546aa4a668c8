"""A paper's tables as data, independent of how they are typeset."""
