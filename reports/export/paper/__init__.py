"""A paper's tables as data: what stands in them, nothing about how they are typeset."""
