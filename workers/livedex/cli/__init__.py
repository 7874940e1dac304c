"""The command line: one small module per command group. Output for people goes to stderr, data to stdout."""

import sys
from typing import NoReturn

from livedex.errors import LivedexError


def main() -> NoReturn:
    """Run the command line; a user's mistake ends in one line and the exit code of contracts.md, never in a traceback."""
    from kafka.errors import KafkaError
    from psycopg import Error as PostgresError

    from livedex.cli.app import app
    from livedex.database import first_line
    from livedex.kafka import describe

    try:
        app(prog_name="livedex")
    except LivedexError as error:
        _fail(str(error), error.exit_code)
    except PostgresError as error:
        _fail(f"postgres refuses: {first_line(error)}", 1)
    except KafkaError as error:
        _fail(f"kafka refuses: {describe(error)}", 1)
    except BrokenPipeError:  # the reader of our output is gone
        sys.exit(0)
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    from livedex.cli.session import readable

    print(f"livedex: {readable(message)}", file=sys.stderr)  # noqa: T201
    sys.exit(code)
