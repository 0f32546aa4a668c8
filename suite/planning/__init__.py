"""From a suite file or options to cells, and what is known of them before the first one runs."""
