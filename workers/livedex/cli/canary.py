"""`livedex canary`: publish, search, measure, repeat."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from livedex.cli.asking import address_of
from livedex.cli.session import patiently, people, print_json, readable, settings
from livedex.config import Settings, duration
from livedex.errors import UsageError
from livedex.lifecycle import Health, Stop

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from livedex.canary import Sources
    from livedex.canary_metrics import Run


def canary(
    topic: Annotated[str | None, typer.Option(help="Only this topic (default: all sources of the settings).")] = None,
    collection: Annotated[str | None, typer.Option(help="Only topics of this collection.")] = None,
    every: Annotated[str, typer.Option(help="How often: a number with s, m or h.")] = "30s",
    timeout: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds until one that is not found has failed.")] = 60.0,
    url: Annotated[str | None, typer.Option(help="The query worker (default: that of this machine).")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with its token (default: LIVEDEX_API_TOKEN_FILE).")] = None,
    once: Annotated[bool, typer.Option("--once", help="Each partition once; exit 0 when every document was found.")] = False,
    metrics_port: Annotated[int | None, typer.Option(min=0, max=65535, help="Serve metrics and health there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Publish a small document, search for it until it is found, and say how long that took. No reader ever sees it."""
    chosen = settings()
    seconds = _seconds(every)
    sources = _sources(chosen, topic, collection)
    stop = Stop()
    stop.on_signals()
    from prometheus_client import CollectorRegistry

    from livedex.canary import Canary, rounds
    from livedex.canary_metrics import CanaryMetrics
    from livedex.core.canary import once_each

    registry = CollectorRegistry()
    with ExitStack() as opened:
        made = Canary(
            chosen.kafka, url=url or address_of(chosen), token_file=token_file or chosen.api_token_file, who="command",
            every=seconds, timeout=timeout, metrics=CanaryMetrics(registry), stop=stop,
        )  # fmt: skip
        opened.callback(made.close)
        say = opened.enter_context(_served(registry, chosen.http_host, metrics_port))
        numbers = once_each(patiently(lambda: made.count_partitions(sources))) if once else None
        failed: Exception | None = None
        for run in rounds(made, lambda: sources, every=0 if once else seconds, stop=stop, numbers=numbers):
            say(run)
            print_json(_fields(run), line=True) if as_json else typer.echo(readable(_line(run)))
            failed = failed or run.error
    if once and failed is not None:
        raise failed


def _seconds(written: str) -> float:
    try:
        every = duration(written)
    except ValueError as error:
        raise UsageError(f"--every {written!r}: {error}") from None
    assert isinstance(every, timedelta)
    if not every:
        raise UsageError(f"--every {written!r}: expected at least 1s")
    return every.total_seconds()


def _sources(chosen: Settings, topic: str | None, collection: str | None) -> "Sources":
    """The collection of each topic; a topic that the settings do not name needs its collection named."""
    known = {name: source.collection for name, source in chosen.sources.items()}
    if topic is not None:
        feeds = collection or known.get(topic)
        if feeds is None:
            raise UsageError(f"the settings do not say which collection the topic {topic} feeds: name it with --collection")
        return {topic: feeds}
    found = {name: feeds for name, feeds in known.items() if collection in (None, feeds)}
    if not found:
        of = f" of the collection {collection}" if collection else ""
        raise UsageError(f"the settings name no source{of}: name a topic with --topic")
    return found


@contextmanager
def _served(registry: "CollectorRegistry", host: str, port: int | None) -> Iterator[Callable[["Run"], None]]:
    """Metrics and health over HTTP, where a port is given: it is ready while documents are found. What is given takes note of a
    run.
    """
    if port is None:
        yield lambda _: None
        return
    from fastapi import FastAPI
    from prometheus_client import Gauge
    from prometheus_client.process_collector import ProcessCollector

    from livedex.http_server import HttpServer, health_routes, listen

    ProcessCollector(registry=registry)
    gauge = Gauge("livedex_dependency_up", "1 when the last document was found", ["dependency"], registry=registry)
    health = Health(gauge, "canary")
    app = FastAPI(title="livedex canary", openapi_url=None)
    app.include_router(health_routes(health, registry))
    server = HttpServer(app, listen(host, port, "--metrics-port"))
    server.start()
    people.print(f"metrics at http://{server.address}/metrics")

    def note(run: "Run") -> None:
        if run.error is None:
            health.up("canary")
        else:
            health.down("canary", run.error)

    try:
        yield note
    finally:
        server.stop()


def _fields(run: "Run") -> dict[str, Any]:
    return {
        "at": _time(run), "topic": run.topic, "partition": run.partition, "collection": run.collection, "token": run.token,
        "outcome": run.outcome, "seconds": round(run.seconds, 6), "reason": str(run.error) if run.error is not None else None,
    }  # fmt: skip


def _line(run: "Run") -> str:
    where = run.token or (run.topic if run.partition is None else f"{run.topic}[{run.partition}]")
    end = "found" if run.error is None else "failed"
    why = f": {run.error}" if run.error is not None else ""
    return f"{_time(run)} {where} {end} after {run.seconds:.3f} s{why}"


def _time(run: "Run") -> str:
    return datetime.fromtimestamp(run.at, UTC).isoformat(timespec="milliseconds")
