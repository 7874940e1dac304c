"""The index worker: poll > plan > embed > stage > apply, so that Postgres holds the fold of the log."""
