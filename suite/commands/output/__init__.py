"""What commands print: tables, lines, bars, and the same as JSON."""
