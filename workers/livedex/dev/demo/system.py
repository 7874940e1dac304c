"""A livedex of the demo's own: stack and workers in one folder, on free ports, driven through the front doors only:
commands as processes, Kafka, HTTP and SQL.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psycopg
from kafka import KafkaProducer

from livedex import events
from livedex.config import DEFAULT_TOPIC, KafkaSettings
from livedex.core.record import Place
from livedex.dev.demo.figures import Figures
from livedex.dev.kafka import free_port
from livedex.dev.stack import Stack
from livedex.errors import InvariantError, TimedOutError, UnavailableError
from livedex.kafka import open_producer

READY_SECONDS = 180.0  # of a worker: it loads a model
STOP_SECONDS = 12.0  # a worker ends within 10 after SIGTERM
COMMAND_SECONDS = 120.0
TAIL_LINES = 15
INHERITED = ("LIVEDEX_EMBEDDER", "LIVEDEX_MODEL")  # settings of the caller that make sense for a stack of our own


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """`livedex index` or `livedex serve` as a process of its own, its output in a file."""

    command: str
    process: "subprocess.Popen[bytes]"
    log: Path
    address: str  # http://host:port

    def ready(self) -> bool:
        """Whether it says so; UnavailableError when it has ended."""
        if self.process.poll() is not None:
            raise UnavailableError(self.command, f"livedex {self.command} ended with {self.process.returncode}")
        try:
            return httpx.get(f"{self.address}/readyz", timeout=5, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def figures(self) -> Figures:
        """Its metrics now."""
        return Figures.parse(httpx.get(f"{self.address}/metrics", timeout=10, trust_env=False).raise_for_status().text)

    def stop(self) -> int:
        """SIGTERM, then SIGKILL when that was not enough; the exit status. Idempotent."""
        self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def tail(self) -> str:
        """The end of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([f"the end of the log of livedex {self.command}:", *lines[-TAIL_LINES:]])


@dataclass
class System:
    """The stack and the workers in `folder`. `up` and `start` begin, `stop` ends everything."""

    folder: Path
    index_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    workers: dict[str, Worker] = field(default_factory=dict)

    @property
    def stack(self) -> Stack:
        """Kafka and Postgres."""
        return Stack(self.folder)

    def start(self, command: str) -> None:
        """Start a worker in a session of its own, so that a Ctrl-C reaches it through `stop` only."""
        log = self.folder / "logs" / f"{command}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                _livedex(command), env=self.environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        port = self.index_port if command == "index" else self.http_port
        self.workers[command] = Worker(command=command, process=process, log=log, address=f"http://127.0.0.1:{port}")

    def stop_workers(self) -> dict[str, int]:
        """End the workers side by side; their exit statuses. Idempotent."""
        for worker in self.workers.values():
            worker.process.terminate()
        return {command: worker.stop() for command, worker in self.workers.items()}

    def stop(self) -> None:
        """End everything; data stays. Idempotent."""
        self.stop_workers()
        if "producer" in vars(self):
            self.producer.close(timeout=2)
        self.stack.down()

    def environment(self) -> dict[str, str]:
        """What the caller's environment and this system make of a process's environment."""
        inherited = {
            name: value for name, value in os.environ.items() if name in INHERITED or not name.startswith(("LIVEDEX_", "PG"))
        }
        addresses = self.stack.addresses()
        return inherited | {
            "LIVEDEX_KAFKA_BOOTSTRAP_SERVERS": addresses.kafka_bootstrap_servers,
            "LIVEDEX_DATABASE_URL": addresses.database_url,
            "LIVEDEX_METRICS_PORT": str(self.index_port),
            "LIVEDEX_HTTP_PORT": str(self.http_port),
        }

    def run(self, *arguments: str, columns: int) -> str:
        """Run a command to its end; its stdout, so many columns wide. What it tells people goes where ours does."""
        done = subprocess.run(
            _livedex(*arguments), env=self.environment() | {"COLUMNS": str(columns)}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, text=True,
            timeout=COMMAND_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            raise InvariantError(f"`livedex {' '.join(arguments)}` ended with {done.returncode}")
        return done.stdout

    @cached_property
    def producer(self) -> KafkaProducer:
        """A producer for events that no command sends."""
        return open_producer(KafkaSettings(bootstrap_servers=self.stack.addresses().kafka_bootstrap_servers))

    def send(self, *made: events.Event, partition: int | None = None) -> list[Place]:
        """Send events in one go; the place of each, as soon as Kafka has acknowledged them all."""
        futures = [
            self.producer.send(DEFAULT_TOPIC, key=event.key.encode(), value=event.value, partition=partition) for event in made
        ]
        self.producer.flush(timeout=events.SEND_TIMEOUT)
        sent = [future.get(timeout=events.SEND_TIMEOUT) for future in futures]
        return [Place(found.topic, found.partition, found.offset) for found in sent]

    def search(self, text: str, **more: Any) -> dict[str, Any]:
        """Ask the query worker over HTTP."""
        body = {"query": text, "k": 5, "timeout_ms": 10_000, **more}
        answer = httpx.post(f"{self.workers['serve'].address}/v1/search", json=body, timeout=15, trust_env=False)
        if not answer.is_success:
            raise InvariantError(f"the search {json.dumps(body)} was answered with {answer.status_code}: {answer.text}")
        return dict(answer.json())

    def connect(self) -> "psycopg.Connection[tuple[Any, ...]]":
        """A connection to the database."""
        return psycopg.connect(self.stack.addresses().database_url, autocommit=True)

    def rows(self, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """What a query answers."""
        with self.connect() as connection:
            return connection.execute(statement, arguments or None).fetchall()


def _livedex(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "livedex", *arguments]


def until(condition: Callable[[], bool], what: str, *, timeout: float) -> None:
    """Return once the condition holds; TimedOutError when it does not in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimedOutError(f"{what} did not come within {timeout:g} s")
        time.sleep(0.05)
