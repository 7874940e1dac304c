"""`make demo`: documents flow from a real Kafka into a real Postgres and are found, on parts of their own."""
