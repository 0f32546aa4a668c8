"""One metric over many records: which values are comparable, and where they changed."""
