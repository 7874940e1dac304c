"""livedex: a semantic index in Postgres that is exactly the fold of a Kafka log of document changes."""

from importlib.metadata import version as _version

__version__ = _version("livedex")
