"""The verdict of a gate for CI, as Markdown and JUnit XML."""
