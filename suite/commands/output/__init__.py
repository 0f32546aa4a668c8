"""The output of commands: tables, lines, progress bars and JSON."""
