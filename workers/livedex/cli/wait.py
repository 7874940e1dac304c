"""`livedex wait`: until an event is searchable."""

import time
from datetime import timedelta
from typing import Annotated

import typer

from livedex.cli.session import database, settings
from livedex.config import Settings
from livedex.core.record import Place
from livedex.database import translated
from livedex.errors import TimedOutError, UsageError

SLICE = 5.0  # seconds of one statement, so that the command can be interrupted


def wait(
    token: Annotated[str, typer.Argument(help="topic:partition:offset, as publish prints it.")],
    timeout: Annotated[float, typer.Option(min=0, help="Seconds; then exit 4.")] = 30.0,
) -> None:
    """Wait until an event is searchable, or a dead letter."""
    place = Place.parse(token)
    if place is None:
        raise UsageError(f"the token {token!r} is no topic:partition:offset")
    wait_for(settings(), place, timeout)


def wait_for(chosen: Settings, place: Place, timeout: float) -> None:
    """Return when the event at this place is searchable; TimedOutError when it is not within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    with database(chosen) as connection:
        while True:
            left = max(0.0, deadline - time.monotonic())
            with translated():
                arguments = (str(place), timedelta(seconds=min(left, SLICE)))
                found = connection.execute("select livedex.wait_for(%s, timeout => %s)", arguments).fetchone()
            if found == (True,):
                return
            if left <= SLICE:
                raise TimedOutError(f"the event {place} was not searchable within {timeout:g} s: livedex status shows the lag")
