"""Dead letters of a test's own topic, made by the real worker, and the command line to deal with them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from livedex.index.app import IndexApp
from livedex.index.letters import State
from support.encoders import MARK, open_failing
from support.fold import fold
from support.index import assert_is_fold
from support.kafka import Log
from support.terminal import Done, Terminal
from support.workers import Workers

OPEN = frozenset({State.OPEN})


@dataclass(slots=True)
class Desk:
    """One topic, its worker (which cannot embed marked texts), and the command `dead-letters`."""

    workers: Workers
    log: Log
    terminal: Callable[[Path], Terminal]
    versions: str = "log"
    topic: str = field(init=False)
    config: Path = field(init=False)
    _end: int = 0

    def __post_init__(self) -> None:
        self.topic = self.log.topic()
        self.config = self.workers.config(self.topic, versions=self.versions)
        self.workers.apply(self.config)

    def take(self, *events: dict[str, Any] | bytes | None, key: str | None = None) -> None:
        """Send these, and let the worker apply them."""
        with self.workers.in_thread(self.worker()):
            self.send(*events, key=key)
            self.caught_up()

    def worker(self) -> IndexApp:
        """The worker, to be run."""
        return IndexApp(self.workers.settings(self.config), open_encoder=open_failing)

    def send(self, *events: dict[str, Any] | bytes | None, key: str | None = None) -> None:
        """Send these. The key is for what has no id of its own."""
        for event in events:
            named = isinstance(event, dict) and "id" in event
            self._end = self.log.send(self.topic, event, key=None if named else key).offset + 1

    def caught_up(self) -> None:
        """Wait until what was sent is applied."""
        self.workers.caught_up(self.topic, {0: self._end})

    def __call__(self, *arguments: str, **environment: str) -> Done:
        """Run `livedex dead-letters` with these arguments."""
        return self.terminal(self.config)("dead-letters", *arguments, **environment)

    def answers(self, *arguments: str, code: int = 0, **environment: str) -> list[dict[str, Any]]:
        """The JSON of a command that must end with this code."""
        done = self(*arguments, "--json", **environment)
        assert done.code == code, done.err
        return list(json.loads(done.out))

    def letters(self, what: str = "state, attempts, reason") -> list[tuple[Any, ...]]:
        """Columns of every dead letter, by id."""
        return self.workers.rows(f"select {what} from livedex.dead_letter order by id")

    def ids(self) -> list[int]:
        """The ids of the dead letters, in their order."""
        return [row[0] for row in self.letters("id")]


def bad(name: str, words: str = "") -> dict[str, Any]:
    """An event whose text the worker cannot embed."""
    return {"id": name, "title": name, "text": f"{MARK}. {words}", "metadata": {"of": name}}


def good(name: str, text: str) -> dict[str, Any]:
    """An event that the worker takes."""
    return {"id": name, "text": text}


def assert_folded(desk: Desk) -> None:
    """The index is the fold of all that was sent."""
    with desk.workers.connect() as connection:
        assert_is_fold(connection, fold(desk.log.records(desk.topic), numbered_by=desk.versions))
