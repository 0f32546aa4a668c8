"""The comparison report as a single page."""
