"""The comparison report as one page."""
