"""The development stack: a real Kafka broker and a real Postgres, from packages, on loopback."""
