"""Canaries for tests: made in the test's process, or as the command that people run."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
from prometheus_client import CollectorRegistry, generate_latest

from livedex.canary import Canary
from livedex.canary_metrics import CanaryMetrics
from livedex.lifecycle import Stop
from support.workers import Metrics, Process, Workers, free_port


class Caged(Canary):
    """A canary of the test's own, with its metrics."""

    def __init__(self, workers: Workers, config: Path, url: str, *, timeout: float = 20.0, stop: Stop | None = None) -> None:
        self.registry = CollectorRegistry()
        super().__init__(
            workers.settings(config).kafka, url=url, token_file=None, who="command", every=1.0, timeout=timeout,
            metrics=CanaryMetrics(self.registry), stop=stop or Stop(),
        )  # fmt: skip

    def __enter__(self) -> "Caged":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def value(self, name: str, **labels: str) -> float:
        """The sum over the series of a metric of it that have these labels, now."""
        return Metrics(self.text).value(name, **labels)

    @property
    def text(self) -> str:
        """All its metrics, as Prometheus has them."""
        return generate_latest(self.registry).decode()


class Forgetful:
    """A query worker that finds nothing in every second search, or never: a proxy before a real one. Use it as a context."""

    def __init__(self, address: str, *, always: bool = False) -> None:
        self._address = address
        self._always = always
        self.asked = 0

    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                found = httpx.post(f"{outer._address}{self.path}", content=body, headers=headers, trust_env=False, timeout=30)
                answer = found.json()
                if found.status_code == httpx.codes.OK:
                    outer.asked += 1
                    if outer._always or outer.asked % 2:
                        answer["results"] = []
                content = json.dumps(answer).encode()
                self.send_response(found.status_code)
                self.send_header("Content-Type", found.headers["content-type"])
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, name="forgetful", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


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
