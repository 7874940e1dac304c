"""The benchmark suite, `make bench`: livedex beside two other pipelines on the same events, and every promise with its aim."""
