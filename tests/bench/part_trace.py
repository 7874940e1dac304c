"""What traces cost the index worker: events that carry a context, through workers with and without OpenTelemetry, in turns.

The `hash` encoder computes next to nothing, so these are the shares at their largest: with a model they are far smaller.
"""

import os
import random
import secrets
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench.figures import Figure
from bench.scene import Scene
from support.kafka import Log
from support.waiting import until
from support.workers import Process, Workers, free_port

PART = "trace"
EVENTS = 2000  # of a turn
ROUNDS = 12
PATIENT = {"session_timeout_ms": 120_000}  # a worker that is halted keeps its partition
ABSENT, OFF, PART_ON, ON = "absent", "off", "1 %", "100 %"
WITHOUT_EXTRA = "import sys; sys.modules['opentelemetry.sdk'] = None; from livedex.cli import main; main()"
WITH_EXTRA = "from livedex.cli import main; main()"


def measure(scene: Scene) -> Iterator[Figure]:
    """Each worker reads as many events in a round, while the others have nothing to do; the order changes."""
    with sink() as endpoint, ExitStack() as stack:
        sides = {
            name: _Side(name, stack.enter_context(scene.database()), scene.log, endpoint) for name in (ABSENT, OFF, PART_ON, ON)
        }
        for side in sides.values():
            side.turn(EVENTS // 4)  # not measured: models and statements are prepared
        rounds = scene.rounds(ROUNDS)
        for _ in range(rounds):
            for side in random.sample(list(sides.values()), len(sides)):
                side.seconds.append(side.turn(EVENTS))
    base = sides[ABSENT]
    for side in (sides[OFF], sides[PART_ON], sides[ON]):
        ratio = statistics.median(there / here for here, there in zip(side.seconds, base.seconds, strict=True))
        busy = statistics.median(here / there for here, there in zip(side.busy[1:], base.busy[1:], strict=True))
        here, there = (EVENTS / statistics.median(each.seconds) for each in (side, base))
        yield Figure(
            part=PART, name=f"events/s with traces {side.name}, against the extra absent", value=ratio, unit="x",
            aim=0.98 if side.name == OFF else None,
            detail=f"{here:.0f} against {there:.0f} events/s, {busy:.2f} x the processor time; medians of {rounds} rounds of "
            f"{EVENTS} events",
        )  # fmt: skip


@dataclass(slots=True)
class _Side:
    """A worker with a database and a topic of its own."""

    name: str
    workers: Workers
    log: Log
    endpoint: str
    seconds: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)  # processor seconds of each turn
    _ends: Counter[int] = field(default_factory=Counter)
    _worker: Process = field(init=False)
    _topic: str = field(init=False)

    def __post_init__(self) -> None:
        self._topic = self.log.topic()
        config = self.workers.config(self._topic, client=PATIENT)
        self.workers.apply(config)
        endpoint = {} if self.name == OFF else {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint}
        sampler = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01" if self.name == PART_ON else "1"}
        port, output = free_port(), self.workers.folder / f"trace-{secrets.token_hex(4)}.log"
        environment = self.workers.environment(config, LIVEDEX_METRICS_PORT=str(port), **endpoint, **sampler)
        code = WITHOUT_EXTRA if self.name == ABSENT else WITH_EXTRA
        with output.open("wb") as stream:
            popen = subprocess.Popen(
                [sys.executable, "-c", code, "index"], env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )
        self._worker = Process(popen, output, f"http://127.0.0.1:{port}")
        self.workers.adopt(self._worker)
        until(self._worker.ready, timeout=180, what=f"the worker {self.name}")

    def turn(self, count: int) -> float:
        """Seconds from when the worker may begin until all of these events are searchable."""
        pid = self._worker.popen.pid
        os.kill(pid, signal.SIGSTOP)  # so that the producer's work is not timed
        posts = [
            self.log.post(
                self._topic, {"id": secrets.token_hex(8), "text": f"A text of {secrets.token_hex(60)}."}, headers=[_context()]
            )
            for _ in range(count)
        ]
        self.log.flush()
        self._ends[0] = posts[-1]().offset + 1
        before, began = _busy(pid), time.perf_counter()
        os.kill(pid, signal.SIGCONT)
        self.workers.caught_up(self._topic, self._ends)
        took = time.perf_counter() - began
        self.busy.append(_busy(pid) - before)
        return took


def _context() -> tuple[str, bytes]:
    return "traceparent", f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01".encode()


def _busy(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def sink() -> Iterator[str]:
    """A collector that looks at nothing, so that it costs next to nothing."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(HTTPStatus.OK)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="sink", daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
