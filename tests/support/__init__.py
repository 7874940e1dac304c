"""What tests share: databases, topics, workers, and an independent fold to compare with."""
