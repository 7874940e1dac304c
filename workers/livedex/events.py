"""Change events as producers send them: made from files, from JSON Lines, and handed to Kafka."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kafka import KafkaProducer
from kafka.producer.future import RecordMetadata

from livedex.core.change import VERSION_HEADER, Rejection, VersionMode, decode
from livedex.core.record import Place, Record
from livedex.errors import UsageError
from livedex.kafka import translated
from livedex.tracing import OFF, Span, Tracer

MARKDOWN = frozenset({".md", ".markdown", ".mdx"})
TEXT = frozenset({".txt", ".rst", ".adoc", ".asciidoc", ".org", ".text"})
JSON_LINES = frozenset({".jsonl", ".ndjson"})
SEND_TIMEOUT = 60.0  # seconds for one acknowledgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One record to send."""

    key: str
    value: bytes | None  # None deletes
    headers: tuple[tuple[str, bytes], ...] = ()


def upsert(document_id: str, text: str, **fields: Any) -> Event:
    """An upsert with any of the fields of contracts.md section 4."""
    event = {"op": "upsert", "id": document_id, "text": text, **fields}
    return Event(key=document_id, value=json.dumps(event, ensure_ascii=False).encode())


def deletion(document_id: str, version: int | None = None) -> Event:
    """A delete; `version` is for collections that take versions from their source."""
    headers = () if version is None else ((VERSION_HEADER, str(version).encode()),)
    return Event(key=document_id, value=None, headers=headers)


def from_paths(paths: Iterable[Path], *, version: int | None = None) -> Iterator[Event]:
    """The events of files, folders and JSON Lines files; UsageError names what cannot be read. Read twice to check first.

    `version` is for the documents that are files; a line of JSON Lines says its own.
    """
    for path in paths:
        try:
            yield from _from_path(path, version)
        except OSError as error:
            raise UsageError(f"{error.filename or path} cannot be read: {error.strerror}") from None


def _from_path(path: Path, version: int | None) -> Iterator[Event]:
    if path.is_dir():
        for file in sorted(file for file in path.rglob("*") if _wanted(file.relative_to(path)) and file.is_file()):
            yield _from_file(file, file.relative_to(path).as_posix(), version)
    elif path.suffix in JSON_LINES and path.is_file():
        yield from _from_json_lines(path)
    elif path.is_file():
        yield _from_file(path, path.name, version)
    else:
        raise UsageError(f"{path} is neither a file nor a folder")


def _wanted(path: Path) -> bool:
    return path.suffix.lower() in MARKDOWN | TEXT and not any(part.startswith(".") for part in path.parts)


def _from_file(path: Path, document_id: str, version: int | None) -> Event:
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: byte {error.start}") from None
    kind = "markdown" if path.suffix.lower() in MARKDOWN else "text"
    numbered = {} if version is None else {"version": version}
    event = upsert(document_id, text, title=path.stem, format=kind, **numbered)
    return _checked(event, str(path))


def _from_json_lines(path: Path) -> Iterator[Event]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _checked(Event(key="", value=line.strip()), f"{path} line {number}")


def _checked(event: Event, origin: str) -> Event:
    """The event with its key; UsageError when the index worker would reject it."""
    record = Record(topic="", partition=0, offset=0, timestamp_ms=0, key=event.key.encode() or None, value=event.value)
    change = decode(record, mode=VersionMode.LOG, epoch=0)
    if isinstance(change, Rejection):
        raise UsageError(f"{origin} is no change event: {change.detail} ({change.reason.value})")
    return Event(key=change.document_id, value=event.value, headers=event.headers)


def send(
    producer: KafkaProducer, topic: str, events: Iterable[Event], sent: Callable[[], None], tracer: Tracer = OFF
) -> list[Place]:
    """Send and wait for every acknowledgement, calling `sent` for each; the place of each event, in order. Each event begins a
    trace of its own, which its headers carry on.
    """
    waiting = []
    with translated():
        for event in events:
            span = _begun(tracer, topic)
            headers = [*event.headers, *(span.context.headers if span.context is not None else ())]
            future = producer.send(topic, key=event.key.encode(), value=event.value, headers=headers)
            waiting.append(future)
            future.add_callback(partial(_acknowledged, span))
            future.add_errback(partial(_refused, span))
            future.add_callback(lambda _: sent())
        producer.flush(timeout=SEND_TIMEOUT)
        acknowledged = [future.get(timeout=SEND_TIMEOUT) for future in waiting]
    return [Place(place.topic, place.partition, place.offset) for place in acknowledged]


def _begun(tracer: Tracer, topic: str) -> Span:
    told = {
        "messaging.system": "kafka", "messaging.operation.name": "send", "messaging.operation.type": "send",
        "messaging.destination.name": topic,
    }  # fmt: skip
    return tracer.begin(f"send {topic}", kind="producer", attributes=told)


def _acknowledged(span: Span, place: RecordMetadata) -> None:
    span.note(attributes={"messaging.destination.partition.id": str(place.partition), "messaging.kafka.offset": place.offset})
    span.end()


def _refused(span: Span, error: Exception) -> None:
    span.note(failed=type(error).__name__)
    span.end()


def last_places(places: Iterable[Place]) -> list[Place]:
    """The last of these in each partition."""
    last = {place.partition: place for place in sorted(places, key=lambda place: place.offset)}
    return [last[partition] for partition in sorted(last)]
