"""Turns a suite file or options into cells, and checks and estimates them before the first one runs."""
