"""The harness: suites become cells, cells become records."""
