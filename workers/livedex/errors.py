"""Errors, named by who has to act.

    LivedexError
    ├── UsageError        the caller: a wrong argument or setting              exit 2
    ├── ConfigError       the operator: settings, model or database contradict exit 1
    ├── UnavailableError  nobody, for now: a dependency does not answer        exit 3
    ├── ConflictError     nobody: another transaction was in the way           exit 1
    ├── SystemicError     the operator: not one record fails but all           exit 1
    ├── TimedOutError     the caller: the deadline passed                      exit 4
    └── InvariantError    the authors: a promise of the design is broken       exit 1

Messages are lower-case sentences that name the object, the actual and the expected value, and the remedy.
"""

from typing import ClassVar


class LivedexError(Exception):
    """Base of every error that livedex raises on purpose; `exit_code` is what a command ends with."""

    exit_code: ClassVar[int] = 1


def loggable(error: Exception) -> str:
    """What a log may say of an error: our own messages; of others only the class, since a model's may quote a text."""
    return str(error) if isinstance(error, LivedexError) else type(error).__name__


class UsageError(LivedexError):
    """A wrong argument or setting, found before anything was touched."""

    exit_code = 2


class InvalidFieldError(UsageError):
    """A field of a request that means nothing where it was asked."""

    def __init__(self, field: str, said: str, hint: str | None = None) -> None:
        super().__init__(f"{field}: {said}")
        self.field, self.said, self.hint = field, said, hint


class ConfigError(LivedexError):
    """What is set up contradicts itself: settings, model, database or topic. Retrying does not help."""


class UnavailableError(LivedexError):
    """A dependency (`kafka`, `postgres`, `embedder`) does not answer. Retrying helps once it is back."""

    exit_code = 3

    def __init__(self, dependency: str, message: str) -> None:
        super().__init__(message)
        self.dependency = dependency


class ConflictError(LivedexError):
    """Another transaction was in the way. The same work, begun again, passes; nothing is down."""


class SystemicError(LivedexError):
    """Not the record at hand is at fault: a table is missing, or every record fails. Nothing is skipped until it is mended."""

    def __init__(self, dependency: str, message: str) -> None:
        super().__init__(message)
        self.dependency = dependency


class TimedOutError(LivedexError):
    """The caller's deadline passed."""

    exit_code = 4


class InvariantError(LivedexError):
    """A promise of the design is broken: a defect in livedex."""
