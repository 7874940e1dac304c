"""`make bench`: freshness, throughput and latency on real parts with the real model, beside a baseline of the same run.

Absolute times belong to the machine; the ratios are what to compare. Prints a table and writes it to bench-results/.
"""

import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["HF_HUB_OFFLINE"] = "1"

import httpx
import psycopg
from rich.console import Console
from rich.table import Table

from livedex.config import DEFAULT_MODEL, KafkaSettings
from livedex.dev.stack import Stack
from livedex.encoders import Encoder, ModelSpec, open_encoder
from support.database import create_template, url_of
from support.kafka import Log
from support.streams import RUST_BOOK, Generator, rust_book
from support.workers import Process, Workers

EDITS = 100
SEARCHES = 200
SAMPLE = 400  # chunks that the bare encoder encodes, before the stream and after it
RESULTS = Path(__file__).parents[2] / "bench-results"

console = Console()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A line of the report."""

    name: str
    value: str
    aim: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The running system."""

    workers: Workers
    log: Log
    topic: str
    index: Process
    serve: Process
    database: "psycopg.Connection[tuple[Any, ...]]"


def main() -> None:
    """Measure, print, write."""
    encoder = open_encoder("auto", ModelSpec(model=DEFAULT_MODEL))
    with running() as bench:
        figures = [*stream(bench, encoder), *edits(bench), *searches(bench), *memory(bench)]
    table = Table("figure", "measured", "aim", title="livedex bench", box=None)
    for figure in figures:
        table.add_row(figure.name, figure.value, figure.aim)
    console.print(table)
    RESULTS.mkdir(exist_ok=True)
    lines = ["| figure | measured | aim |", "|---|---|---|", *(f"| {f.name} | {f.value} | {f.aim} |" for f in figures)]
    (RESULTS / "bench.md").write_text("\n".join(lines) + "\n")
    (RESULTS / "bench.json").write_text(json.dumps({figure.name: figure.value for figure in figures}, indent=1))


@contextmanager
def running() -> Iterator[Bench]:
    """A stack of its own with both workers, ended in the end."""
    with tempfile.TemporaryDirectory(prefix="livedex-bench-", ignore_cleanup_errors=True) as folder:
        stack = Stack(Path(folder) / "stack")
        try:
            addresses = stack.up()
            create_template(addresses.database_url, "bench")
            settings = KafkaSettings(bootstrap_servers=addresses.kafka_bootstrap_servers)
            url = url_of(addresses.database_url, "bench")
            with Workers(addresses, url, Path(folder)) as workers, Log(settings) as log, psycopg.connect(url) as database:
                database.autocommit = True
                topic = log.topic(3)
                config = workers.config(topic)
                workers.apply(config, LIVEDEX_EMBEDDER="auto")
                index, serve = (workers.start(name, config, LIVEDEX_EMBEDDER="auto") for name in ("index", "serve"))
                yield Bench(workers=workers, log=log, topic=topic, index=index, serve=serve, database=database)
        finally:
            stack.down()


def stream(bench: Bench, encoder: Encoder) -> list[Figure]:
    """A whole change stream from the log to searchable, beside the encoder alone on the same chunks."""
    name, events = ("rust-book", rust_book()) if RUST_BOOK.is_file() else ("generated", list(Generator(7, 200).events(2000)))
    started = time.perf_counter()
    for event in events:
        bench.log.post(bench.topic, event)
    bench.log.flush()
    ends = Counter(record.partition for record in bench.log.records(bench.topic))
    bench.workers.caught_up(bench.topic, ends, timeout=3600)
    seconds = time.perf_counter() - started
    embedded = bench.index.metrics().value("livedex_chunks_total", outcome="embedded")
    rows = bench.database.execute(
        "select concat_ws(e'\\n\\n', nullif(context, ''), text) from livedex.chunk order by digest limit %s", (SAMPLE,)
    ).fetchall()
    texts = [row[0] for row in rows]
    encoder.encode_documents(texts[:32])
    alone = len(texts) / statistics.median(timed(lambda: encoder.encode_documents(texts)) for _ in range(3))
    return [
        Figure(name=f"{name} stream, events per second", value=f"{len(events) / seconds:.1f}"),
        Figure(name="chunks per second", value=f"{embedded / seconds:.1f} ({embedded:.0f} chunks)"),
        Figure(name="encoder alone, chunks per second", value=f"{alone:.1f}"),
        Figure(name="pipeline against encoder alone", value=f"{embedded / seconds / alone:.0%}", aim="at least 80%"),
    ]


def edits(bench: Bench) -> list[Figure]:
    """One sentence of one document is changed, on an idle system: from Kafka's acknowledgement to searchable."""
    choose = random.Random(11)
    sentences = [f"Sentence number {number} says that {choose.random()} is a number." for number in range(60)]
    milliseconds = []
    before = bench.index.metrics().value("livedex_chunks_total", outcome="embedded")
    for number in range(EDITS + 1):
        sentences[choose.randrange(len(sentences))] = f"Edit {number} says {choose.random()}."
        place = bench.log.send(bench.topic, {"id": "edited", "text": " ".join(sentences)})
        acknowledged = time.perf_counter()
        query = "select next_offset > %s from livedex.source_progress where topic = %s and partition = %s"
        while bench.database.execute(query, (place.offset, place.topic, place.partition)).fetchone() != (True,):
            time.sleep(0.001)
        milliseconds.append((time.perf_counter() - acknowledged) * 1000)
    embedded = bench.index.metrics().value("livedex_chunks_total", outcome="embedded") - before
    milliseconds = milliseconds[1:]  # the first one creates the document
    return [
        Figure(
            name=f"event to searchable, {EDITS} edits, p50", value=f"{quantile(milliseconds, 50):.0f} ms", aim="at most 120 ms"
        ),
        Figure(name=f"event to searchable, {EDITS} edits, p99", value=f"{quantile(milliseconds, 99):.0f} ms"),
        Figure(name="chunks embedded per edit", value=f"{embedded / EDITS:.2f}"),
    ]


def searches(bench: Bench) -> list[Figure]:
    """Questions that were not asked before, over HTTP, one after another."""
    figures = []
    subjects = ["ownership", "a closure", "an enum", "the borrow checker", "a trait object", "pattern matching", "threads"]
    questions = (f"how does {subject} work with example {number}" for number in itertools.count() for subject in subjects)
    with httpx.Client(base_url=bench.serve.address, trust_env=False, timeout=30) as client:
        for mode in ("vector", "hybrid", "text"):
            ask(client, next(questions), mode)
            milliseconds = [timed(lambda: ask(client, next(questions), mode)) * 1000 for _ in range(SEARCHES)]  # noqa: B023
            value = f"{quantile(milliseconds, 50):.1f} / {quantile(milliseconds, 95):.1f} ms"
            figures.append(Figure(name=f"search over HTTP, {mode}, p50 / p95", value=value))
    return figures


def ask(client: httpx.Client, question: str, mode: str) -> None:
    """One search, which must find something."""
    answer = client.post("/v1/search", json={"query": question, "mode": mode})
    assert answer.json()["results"], answer.text


def memory(bench: Bench) -> list[Figure]:
    """The most memory that each worker had resident."""
    return [
        Figure(name=f"resident memory of {name}, peak", value=f"{peak(process) / 2**30:.2f} GB", aim="at most 1.5 GB")
        for name, process in (("index", bench.index), ("serve", bench.serve))
    ]


def peak(process: Process) -> int:
    """Bytes."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def quantile(values: list[float], percent: int) -> float:
    """The value that `percent` of the values do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
