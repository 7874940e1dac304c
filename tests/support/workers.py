"""Runs livedex as its users do: commands and workers as processes; and workers in threads, where a test must reach inside."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psycopg

from livedex import apply as provisioning
from livedex.config import Settings
from livedex.dev.stack import Addresses
from livedex.index.app import IndexApp
from livedex.query.app import QueryApp
from support.waiting import until

SESSION_TIMEOUT_MS = 1_500  # of the group: a killed worker's partitions move this soon


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Process:
    """A worker that runs as a process, its output in a file."""

    popen: "subprocess.Popen[bytes]"
    output: Path
    address: str  # http://host:port of its metrics and health

    def ready(self) -> bool:
        """Whether it says so."""
        try:
            return httpx.get(f"{self.address}/readyz", timeout=2, trust_env=False).status_code == httpx.codes.OK
        except httpx.HTTPError:
            assert self.popen.poll() is None, f"the worker ended with {self.popen.returncode}: {self.log()[-2000:]}"
            return False

    def metrics(self) -> "Metrics":
        """Its metrics now."""
        return Metrics(httpx.get(f"{self.address}/metrics", timeout=5, trust_env=False).text)

    def log(self) -> str:
        """What it wrote so far."""
        return self.output.read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.popen.kill()
        self.popen.wait(timeout=10)

    def stop(self, timeout: float = 10.0) -> int:
        """SIGTERM, and the exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(timeout=timeout)


class Metrics:
    """Prometheus text, to be asked by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text

    def value(self, name: str, **labels: str) -> float:
        """The sum over the series that have these labels; 0 when there is none."""
        total = 0.0
        for line in self.text.splitlines():
            found = re.fullmatch(rf"{re.escape(name)}(?:\{{(.*)\}})? (\S+)", line)
            if found and labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', found[1] or "")).items():
                total += float(found[2])
        return total


@dataclass(slots=True)
class Workers:
    """Makes settings for one test's database and topics, and runs things with them."""

    stack: Addresses
    database_url: str
    folder: Path
    _processes: list[Process] = field(default_factory=list)
    _files: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._processes:
            if process.popen.poll() is None:
                process.kill()
            if error is not None:
                print(f"--- {process.output.name}\n{process.log()[-3000:]}")  # noqa: T201

    def config(
        self, topic: str, *, group: str | None = None, client: Mapping[str, Any] | None = None, **collection: str
    ) -> Path:
        """A settings file: collection `default` fed by `topic`, in a consumer group of its own."""
        self._files += 1
        path = self.folder / f"livedex-{self._files}.toml"
        options = {"group_id": group or topic, "session_timeout_ms": SESSION_TIMEOUT_MS, **(client or {})}
        lines = [f"{name} = {json.dumps(value)}" for name, value in collection.items()]
        path.write_text(
            "[kafka]\nclient = { " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in options.items()) + " }\n"
            "[collections.default]\n" + "\n".join(lines) + f'\n[sources."{topic}"]\ncollection = "default"\n'
        )
        return path

    def environment(self, config: Path | None = None, *, embedder: str = "hash", **more: str) -> dict[str, str]:
        """The environment of a process."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LIVEDEX_", "PG"))}
        own = {
            "LIVEDEX_KAFKA_BOOTSTRAP_SERVERS": self.stack.kafka_bootstrap_servers,
            "LIVEDEX_DATABASE_URL": self.database_url,
            "LIVEDEX_EMBEDDER": embedder,
            "HF_HUB_OFFLINE": "1",
            **({"LIVEDEX_CONFIG": str(config)} if config else {}),
        }
        return {**inherited, **own, **more}

    def settings(self, config: Path, **more: Any) -> Settings:
        """The same settings, for use in this process; `embedder` is hash unless said otherwise."""
        import tomllib

        content = tomllib.loads(config.read_text())
        content["kafka"]["bootstrap_servers"] = self.stack.kafka_bootstrap_servers
        ports = {"http_port": 0, "metrics_port": 0}
        return Settings(**{**content, "database_url": self.database_url, "embedder": "hash", **ports, **more})

    def run(
        self, *arguments: str, config: Path | None = None, timeout: float = 120, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return self._run("-m", "livedex", *arguments, config=config, timeout=timeout, **environment)

    def run_code(
        self, code: str, *arguments: str, config: Path, timeout: float = 120, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, by way of this code."""
        return self._run("-c", code, *arguments, config=config, timeout=timeout, **environment)

    def _run(
        self, *arguments: str, config: Path | None, timeout: float, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *arguments], env=self.environment(config, **environment), capture_output=True, text=True,
            timeout=timeout, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def apply(self, config: Path, **environment: str) -> None:
        """What `livedex apply` does, which must pass; in this process, where a command takes two seconds to begin."""
        if environment:
            done = self.run("apply", config=config, timeout=120, **environment)
            assert done.returncode == 0, done.stderr
            return
        with self.connect() as connection:
            provisioning.run(provisioning.plan(self.settings(config), connection, topics=True))

    def start(self, command: str, config: Path, *, wait: bool = True, module: str = "livedex", **environment: str) -> Process:
        """`livedex index` or `livedex serve` as a process, ready unless told not to wait. `module` may be another one that has
        the same commands.
        """
        port = free_port()
        setting = "LIVEDEX_METRICS_PORT" if command == "index" else "LIVEDEX_HTTP_PORT"
        output = self.folder / f"{command}-{len(self._processes)}.log"
        with output.open("wb") as stream:
            popen = subprocess.Popen(
                [sys.executable, "-m", module, command], env=self.environment(config, **{setting: str(port), **environment}),
                stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            )  # fmt: skip
        process = self.adopt(Process(popen, output, f"http://127.0.0.1:{port}"))
        if wait:
            until(process.ready, timeout=90, what=f"livedex {command} to be ready")
        return process

    def adopt(self, process: Process) -> Process:
        """End with the test what somebody else has started."""
        self._processes.append(process)
        return process

    @contextmanager
    def in_thread(self, app: IndexApp | QueryApp) -> Iterator[str]:
        """Run a worker inside this process; its address. A failure in it fails the test."""
        failures: list[BaseException] = []

        def run() -> None:
            try:
                app.run()
            except BaseException as error:  # noqa: BLE001 - told to the test below
                failures.append(error)

        thread = threading.Thread(target=run, name="app", daemon=True)
        thread.start()
        try:
            until(lambda: not app.health.waiting_for or failures, timeout=60, what="the worker to be ready")
            assert not failures, failures
            yield f"http://{app.http.address}"
        finally:
            app.stop.ask("the test is over")
            thread.join(timeout=15)
        assert not failures, failures
        assert not thread.is_alive()

    def connect(self) -> "psycopg.Connection[tuple[Any, ...]]":
        """A connection to the test's database."""
        return psycopg.connect(self.database_url, autocommit=True)

    def rows(self, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """What a query answers."""
        with self.connect() as connection:
            return connection.execute(statement, arguments or None).fetchall()

    def execute(self, *statements: str) -> None:
        """Do something to the test's database."""
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement)

    def caught_up_by(self, config: Path, topic: str, ends: Mapping[int, int]) -> None:
        """Let a worker apply everything, and end it."""
        worker = self.start("index", config)
        self.caught_up(topic, ends)
        assert worker.stop() == 0

    def caught_up(self, topic: str, ends: Mapping[int, int], *, timeout: float = 120) -> None:
        """Wait until the progress of every partition of the topic is at its end."""
        statement = "select partition, next_offset from livedex.progress where topic = %s"
        with self.connect() as connection:  # one for all looks: a new one each time would slow down what is waited for

            def there() -> bool:
                found = dict(connection.execute(statement, (topic,)).fetchall())
                return all(found.get(partition, 0) >= end for partition, end in ends.items())

            until(there, timeout=timeout, what=f"{topic} to be applied up to {dict(ends)}")
