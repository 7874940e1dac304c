"""A broker and a Postgres server with TLS, certificates of an own authority and passwords, for tests only."""
