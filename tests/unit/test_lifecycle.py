"""What a worker does at its start when what it needs is not there, or in use."""

import pytest
from prometheus_client import Gauge

from livedex.errors import ConfigError, ConflictError, LivedexError, UnavailableError
from livedex.lifecycle import Health, Stop, until_available


def health() -> Health:
    """With one dependency."""
    return Health(Gauge("up", "", ["dependency"], registry=None), "postgres")


@pytest.mark.parametrize("error", [UnavailableError("postgres", "away"), ConflictError("a migration holds the table")])
def test_what_passes_is_waited_for(error: LivedexError) -> None:
    """A dependency that is down, and a table that a migration has locked."""
    errors = iter([error, error])

    def work() -> str:
        failed = next(errors, None)
        if failed is not None:
            raise failed
        return "done"

    assert until_available(work, stop=Stop(), health=health(), jitter=lambda: 0.0) == "done"


def test_what_does_not_pass_is_told() -> None:
    """A wrong setting ends the start."""

    def work() -> str:
        raise ConfigError("wrong")

    with pytest.raises(ConfigError):
        until_available(work, stop=Stop(), health=health(), jitter=lambda: 0.0)


def test_a_stop_ends_the_waiting() -> None:
    """Nothing is given back then."""
    stop = Stop()

    def work() -> str:
        stop.ask("test")
        raise UnavailableError("postgres", "away")

    assert until_available(work, stop=stop, health=health(), jitter=lambda: 0.0) is None
