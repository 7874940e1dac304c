"""What commands share: the settings, the consoles, and patience with what does not answer at once."""

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from livedex import config, migrate
from livedex.config import Settings
from livedex.core.backoff import backoff
from livedex.database import Connection, connect
from livedex.errors import UnavailableError

PATIENCE = 10.0  # seconds that a command waits for a dependency

T = TypeVar("T")

settings_file: ContextVar[Path | None] = ContextVar("settings_file", default=None)  # of --config
people = Console(stderr=True)
data = Console()


def settings(path: Path | None = None) -> Settings:
    """The settings of `path`, else of --config, else of LIVEDEX_CONFIG, under the environment's."""
    return config.load(path or settings_file.get())


def patiently(work: Callable[[], T]) -> T:
    """The result of `work`, tried again for a while when a dependency does not answer; then its UnavailableError."""
    deadline = time.monotonic() + PATIENCE
    attempt = 0
    while True:
        try:
            return work()
        except UnavailableError:
            attempt += 1
            pause = backoff(attempt, random.random())  # noqa: S311
            left = deadline - time.monotonic()
            if left <= 0:
                raise
            time.sleep(min(pause, left))


@contextmanager
def database(chosen: Settings, *, migrated: bool = True) -> Iterator[Connection]:
    """A connection for one command, to a database that has this version's tables."""
    connection = patiently(lambda: connect(chosen.database_url, timeout=2))
    with connection:
        if migrated:
            for warning in migrate.check(connection):
                warn(warning)
        yield connection


@contextmanager
def progress(label: str, count: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr of `count` steps; what is given notes one step."""
    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=people) as bar:
        task = bar.add_task(label, total=count)
        yield lambda: bar.advance(task)


def warn(warning: str) -> None:
    """Say what is not an error yet."""
    people.print(f"warning: {warning}", style="yellow", markup=False)


def readable(text: str) -> str:
    """The text with its control characters written out, newline and tab excepted: a terminal must not obey a document."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # Unicode's category Cc but newline and tab


def print_json(value: Any, *, line: bool = False) -> None:
    """Plain JSON on stdout, on one line if wanted; control characters are escaped, those that JSON would let through too."""
    import json

    text = json.dumps(value, default=_plain, ensure_ascii=False, indent=None if line else 2)
    typer.echo(re.sub(r"[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text))


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def table(title: str, rows: list[dict[str, Any]], columns: dict[str, str]) -> Table:
    """A table of these columns (field: heading); what is not there is a dash."""
    made = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for heading in columns.values():
        made.add_column(heading)
    for row in rows:
        made.add_row(*(_cell(row.get(field)) for field in columns))
    return made


def _cell(value: object) -> Text:
    if value is None:
        return Text("-")
    if isinstance(value, datetime):
        return Text(value.astimezone(UTC).isoformat(sep=" ", timespec="seconds"))
    return Text(f"{value:.3f}" if isinstance(value, float) else readable(str(value)))
