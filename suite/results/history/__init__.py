"""One metric over many records: what may be compared, and where it changed."""
