"""How the Postgres side of the index worker fails, named by what to do about it."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors

from livedex.core.plan import DocumentResult
from livedex.database import first_line
from livedex.errors import ConflictError, SystemicError, UnavailableError


class FencedError(Exception):
    """The partition has another owner by now, or the batch was applied before."""


class SourceStoppedError(Exception):
    """The source is stopped, and says why and what to do; an operator has to act."""


class RefusedError(Exception):
    """Postgres refuses some document for what it holds: the others of its batch may pass."""


class UnknownCommitError(UnavailableError):
    """The connection was lost while committing: whether `results` came true, only the progress row can say."""

    def __init__(self, cause: UnavailableError, results: dict[str, DocumentResult]) -> None:
        super().__init__(cause.dependency, str(cause))
        self.results = results


@contextmanager
def judged() -> Iterator[None]:
    """What Postgres refuses: because of another transaction, because of a document, or because the database is not ours."""
    try:
        yield
    except (errors.DeadlockDetected, errors.SerializationFailure, errors.LockNotAvailable) as error:
        raise ConflictError(f"another transaction is in the way: {first_line(error)}") from error
    except errors.QueryCanceled as error:
        raise UnavailableError("postgres", f"postgres gave a statement up: {first_line(error)}") from error
    except (psycopg.ProgrammingError, psycopg.NotSupportedError) as error:
        raise _systemic(error) from error
    except psycopg.DataError as error:
        if type(error) is errors.DataException:  # how pgvector says that a dimension is wrong
            raise _systemic(error) from error
        raise RefusedError(first_line(error)) from error
    except errors.ForeignKeyViolation as error:  # no document holds a key: what it refers to was deleted meanwhile
        raise ConflictError(f"another transaction deleted what is referred to: {first_line(error)}") from error
    except (psycopg.IntegrityError, errors.InternalError_, errors.ProgramLimitExceeded) as error:
        raise RefusedError(first_line(error)) from error


def _systemic(error: psycopg.Error) -> SystemicError:
    return SystemicError(
        "postgres",
        f"the database is not what this livedex needs: {first_line(error)}. Run livedex doctor and livedex migrate --check",
    )
