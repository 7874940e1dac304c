"""Canaries for tests: made in the test's process, or as the command that people run."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from livedex.canary import Canary, CanaryMetrics
from livedex.lifecycle import Stop
from support.workers import Process, Workers, free_port


class Caged(Canary):
    """A canary of the test's own, with its metrics."""

    def __init__(self, workers: Workers, config: Path, url: str, *, timeout: float = 20.0, stop: Stop | None = None) -> None:
        self.registry = CollectorRegistry()
        super().__init__(
            workers.settings(config).kafka, url=url, token_file=None, who="command", timeout=timeout,
            metrics=CanaryMetrics(self.registry), stop=stop or Stop(),
        )  # fmt: skip

    def __enter__(self) -> "Caged":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def value(self, name: str, **labels: str) -> float | None:
        """A metric of it now."""
        return self.registry.get_sample_value(name, labels)


def start(workers: Workers, config: Path, *arguments: str, **environment: str) -> Process:
    """`livedex canary` as a process that serves its metrics."""
    port = free_port()
    output = workers.folder / f"canary-{port}.log"
    command = [sys.executable, "-m", "livedex", "canary", "--metrics-port", str(port), *arguments]
    with output.open("wb") as stream:
        popen = subprocess.Popen(
            command, env=workers.environment(config, **environment), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    return workers.adopt(Process(popen, output, f"http://127.0.0.1:{port}"))


def ids(rows: list[dict[str, Any]]) -> list[str]:
    """The documents of an answer, in order."""
    return [row["document_id"] for row in rows]
