"""A gate's verdict for CI: Markdown and JUnit XML."""
