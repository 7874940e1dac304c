"""A Kafka broker and a Postgres server in one folder: what `livedex dev up | env | down` do.

    DIR/stack.json   ports and the superuser's password, chosen at the first start
    DIR/kafka, DIR/postgres   data
    DIR/logs, DIR/run         output and pid files
    DIR/lock         held while one `up` or `down` works

Stacks in different folders do not know of each other.
"""

import fcntl
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from livedex.dev import jars
from livedex.dev.kafka import Kafka, free_port, is_free, java_binary
from livedex.dev.postgres import Postgres, binary, privileges
from livedex.dev.process import Daemon
from livedex.errors import ConfigError, UnavailableError


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where a stack answers."""

    kafka_bootstrap_servers: str
    database_url: str  # a libpq URL of a superuser


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a stack keeps across restarts."""

    kafka_port: int
    postgres_port: int
    postgres_password: str


class Stack:
    """The development stack in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()

    @property
    def kafka(self) -> Kafka:
        """The broker; ConfigError when the stack was never started."""
        return self._kafka(self._choices())

    @property
    def postgres(self) -> Postgres:
        """The database server; ConfigError when the stack was never started."""
        return self._postgres(self._choices())

    def addresses(self) -> Addresses:
        """Where the stack answers when it is up; ConfigError when it was never started."""
        return Addresses(kafka_bootstrap_servers=self.kafka.bootstrap_servers, database_url=self.postgres.url)

    def up(self, *, kafka_port: int | None = None, postgres_port: int | None = None, timeout: float = 60.0) -> Addresses:
        """Start what does not run and return when both answer; nothing is left running when one does not.

        Raises ConfigError (extra missing, port taken), UnavailableError (a server ended), TimedOutError.
        """
        deadline = time.monotonic() + timeout
        _check_installation()  # before anything starts
        with self._locked():
            self._choose(kafka_port, postgres_port)
            try:
                # Kafka first, as the slower one: it comes up while the cluster is created.
                fresh = {server: server.start() for server in (self.kafka, self.postgres)}
                for server, started in fresh.items():
                    _wait_ready(server, started, deadline)
            except BaseException:
                self._stop()
                raise
        return self.addresses()

    def down(self) -> None:
        """Stop what runs; data stays."""
        if self._file.exists():
            with self._locked():
                self._stop()

    def _stop(self) -> None:
        try:
            self.kafka.stop()
        finally:
            self.postgres.stop()

    def _kafka(self, choices: Choices) -> Kafka:
        return Kafka(directory=self.directory, port=choices.kafka_port)

    def _postgres(self, choices: Choices) -> Postgres:
        return Postgres(directory=self.directory, port=choices.postgres_port, password=choices.postgres_password)

    @property
    def _file(self) -> Path:
        return self.directory / "stack.json"

    def _choices(self) -> Choices:
        try:
            return Choices(**json.loads(self._file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ConfigError(f"there is no stack in {self.directory}: run `livedex dev up` first") from None
        except (TypeError, ValueError) as exc:
            raise ConfigError(f"{self._file} is not what livedex wrote ({exc}): remove {self.directory}") from exc

    def _choose(self, kafka_port: int | None, postgres_port: int | None) -> None:
        """Keep the ports of the last start, or those given, and write them down."""
        if self._file.exists():
            old = self._choices()
        else:
            password = secrets.token_urlsafe(16)
            old = Choices(kafka_port=free_port(), postgres_port=free_port(), postgres_password=password)
        new = replace(
            old,
            kafka_port=_checked_port(self._kafka(old).daemon, old.kafka_port, kafka_port),
            postgres_port=_checked_port(self._postgres(old).daemon, old.postgres_port, postgres_port),
        )
        self._write(new)

    def _write(self, choices: Choices) -> None:
        """Replace the file in one step: `env` and an `up` that is done read it without the lock."""
        draft = self._file.with_suffix(".new")
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(asdict(choices)), encoding="utf-8")
        draft.replace(self._file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One `up` or `down` at a time."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)  # the password is in it
            lock = (self.directory / "lock").open("w")
        except OSError as exc:
            raise ConfigError(f"cannot write the folder {self.directory} ({exc.strerror}): choose another") from exc
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _check_installation() -> None:
    java_binary()
    jars.class_path()
    binary("postgres")
    privileges()


def _wait_ready(server: Kafka | Postgres, started: bool, deadline: float) -> None:
    """Wait until the server answers; one that was found running may have been at its end, and is started again."""
    try:
        server.wait_ready(deadline - time.monotonic())
    except UnavailableError:
        if started:
            raise
        server.start()
        server.wait_ready(deadline - time.monotonic())


def _checked_port(daemon: Daemon, remembered: int, given: int | None) -> int:
    """Decide the port to use: the given one if any, else the remembered one; ConfigError when it cannot be had."""
    port = given or remembered
    if daemon.pid is not None:
        if port != remembered:
            raise ConfigError(f"{daemon.name} runs on port {remembered}, not {port}: run `livedex dev down` first to move it")
    elif not is_free(port):
        raise ConfigError(
            f"port {port} of {daemon.name} is taken by another process: end that one, or give {daemon.name} another "
            f"port with `livedex dev up --{daemon.name}-port N`"
        )
    return port
