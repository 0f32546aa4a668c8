"""What was measured besides perplexity and cost: a chapter a kind of measurement, for pages and papers."""
