"""Fixtures: one real broker and one real Postgres for the session; a database and topics of its own for each test."""

import os
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from livedex.config import KafkaSettings
from livedex.dev.stack import Addresses, Stack
from livedex.errors import LivedexError
from support.database import create_template, drop_database, fresh_database
from support.kafka import Log
from support.letters import Desk
from support.terminal import Terminal
from support.workers import Workers, free_port

pytest_plugins = ["support.faults.plugin"]  # options of the run must be known before tests/faults is read


def pytest_configure() -> None:
    """Forget the terminal's width, which the processes of a shared run are given: consoles keep what they find when they are
    imported, and tests set their own.
    """
    os.environ.pop("COLUMNS", None)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the caller's shell reaches a test."""
    for name in list(os.environ):
        if name.startswith(("LIVEDEX_", "PG", "OTEL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """Kafka and Postgres. TEST_STACK names the folder of one that runs already and is left running."""
    running = os.environ.get("TEST_STACK")
    own = Stack(Path(running) if running else tmp_path_factory.mktemp("stack"))
    try:
        addresses = own.up()
    except LivedexError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the development stack does not start: {error}")
    try:
        yield addresses
    finally:
        if not running:
            own.down()


@pytest.fixture(scope="session")
def template(stack: Addresses) -> Iterator[str]:
    """The name of a migrated database, to copy."""
    name = f"template_{uuid.uuid4().hex[:8]}"
    create_template(stack.database_url, name)
    yield name
    drop_database(stack.database_url, name)


@pytest.fixture
def database_url(stack: Addresses, template: str) -> Iterator[str]:
    """A migrated, empty database of the test's own."""
    with fresh_database(stack.database_url, template) as url:
        yield url


@pytest.fixture
def empty_database_url(stack: Addresses) -> Iterator[str]:
    """A database of the test's own without anything in it."""
    with fresh_database(stack.database_url, "template1") as url:
        yield url


@pytest.fixture
def kafka_settings(stack: Addresses) -> KafkaSettings:
    """How clients reach the broker."""
    return KafkaSettings(bootstrap_servers=stack.kafka_bootstrap_servers)


@pytest.fixture
def log(kafka_settings: KafkaSettings) -> Iterator[Log]:
    """Producer and reader of the test's own topics, which are deleted afterwards."""
    with Log(kafka_settings) as own:
        yield own


@pytest.fixture
def workers(stack: Addresses, database_url: str, tmp_path: Path) -> Iterator[Workers]:
    """Starts workers and commands as processes and in threads, and ends them all after the test."""
    with Workers(stack, database_url, tmp_path) as own:
        yield own


@pytest.fixture
def port() -> Callable[[], int]:
    """Gives ports that nobody listens on."""
    return free_port


@pytest.fixture
def open_desk(
    workers: Workers, log: Log, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Desk]:
    """Makes a topic whose worker leaves dead letters, and the command line for them."""
    monkeypatch.setenv("COLUMNS", "400")
    environment = {
        "LIVEDEX_KAFKA_BOOTSTRAP_SERVERS": workers.stack.kafka_bootstrap_servers,
        "LIVEDEX_DATABASE_URL": workers.database_url,
        "LIVEDEX_EMBEDDER": "hash",
    }

    def terminal(config: Path) -> Terminal:
        return Terminal({**environment, "LIVEDEX_CONFIG": str(config)}, monkeypatch, capsys)

    return partial(Desk, workers, log, terminal)


@pytest.fixture
def desk(open_desk: Callable[..., Desk]) -> Desk:
    """A topic whose versions are its offsets."""
    return open_desk()
