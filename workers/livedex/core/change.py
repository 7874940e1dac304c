"""From raw bytes to a change: `decode` never raises, what it cannot read becomes a `Rejection` with a reason.

The event is contracts.md section 4; `schema/events/change.v1.json` says the same for producers in other languages.
"""

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from livedex.core.moment import parse_time
from livedex.core.nesting import walk
from livedex.core.record import Place, Record, Version

MAX_ID_CHARACTERS = 512
MAX_TEXT_BYTES = 10 * 2**20  # of UTF-8, after decoding
MAX_VALUE_BYTES = 32 * 2**20  # what `livedex apply` allows in a topic; nothing larger is parsed
MAX_NESTING = 100  # levels; fixed, because the parser's own limit differs between Python versions
MAX_VERSION = 2**63 - 1
VERSION_HEADER = "livedex-version"
CANARY_PREFIX = "livedex-canary/"  # of the ids of documents that no reader sees: those of livedex canary
CANARY_HEADER = "livedex-canary"  # of records that may write them, and of HTTP searches that find them

_NATURAL = re.compile(rb"[0-9]{1,19}")


class Op(StrEnum):
    """What an event does to its document."""

    UPSERT = "upsert"
    DELETE = "delete"
    METADATA = "metadata"


class Reason(StrEnum):
    """Why a record became a dead letter."""

    INVALID_UTF8 = "invalid-utf8"
    INVALID_JSON = "invalid-json"
    SCHEMA = "schema"
    MISSING_ID = "missing-id"
    ID_MISMATCH = "id-mismatch"
    MISSING_VERSION = "missing-version"
    TOO_LARGE = "too-large"
    NUL_CHARACTER = "nul-character"
    LONE_SURROGATE = "lone-surrogate"
    NESTING = "nesting"
    UNREADABLE = "unreadable"  # the client cannot take the batch apart that the log has there
    EMBEDDING_FAILED = "embedding-failed"
    STORING_FAILED = "storing-failed"  # the database refuses the document for what it holds


class VersionMode(StrEnum):
    """Who numbers the versions of a collection's documents: the log's offsets, or the producer."""

    LOG = "log"
    SOURCE = "source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One valid event. `title`, `text` and `markdown` mean something for an upsert only, `metadata` not for a delete."""

    place: Place
    document_id: str
    op: Op
    version: Version
    event_time: datetime  # aware; the producer's `time`, else Kafka's timestamp
    timestamp: datetime  # Kafka's timestamp
    title: str | None = None
    text: str = ""
    markdown: bool = True
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why a record cannot be indexed; `detail` names what was found and what was expected, never document text."""

    reason: Reason
    detail: str
    document_id: str | None = None  # None when the record does not say which document it meant
    version: Version | None = None  # None when the record does not say its number


class _RejectedError(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def decode(record: Record, *, mode: VersionMode, epoch: int) -> Change | Rejection:
    """The change that a record stands for, or why it stands for none. Never raises, whatever the bytes."""
    document_id: str | None = None
    event: dict[str, Any] = {}
    try:
        document_id = _key(record.key)
        event = {"op": Op.DELETE} if record.value is None else _parse(record.value)
        document_id = _document_id(event, document_id)
        _refuse_reserved(document_id, record)
        return _change(record, document_id, event, mode, epoch)
    except _RejectedError as rejected:
        version = _version_of(record, event, mode, epoch)
        return Rejection(reason=rejected.reason, detail=rejected.detail, document_id=document_id, version=version)


def _version_of(record: Record, event: dict[str, Any], mode: VersionMode, epoch: int) -> Version | None:
    """The version of a rejected record, as far as it can be read."""
    try:
        number = record.offset if mode is VersionMode.LOG else _version(event, record)
    except _RejectedError:
        return None
    return Version(epoch, number, record.offset)


def _change(record: Record, document_id: str, event: dict[str, Any], mode: VersionMode, epoch: int) -> Change:
    op = _op(event)
    place = record.place
    number = place.offset if mode is VersionMode.LOG else _version(event, record)
    content: dict[str, Any] = {}
    if op is Op.UPSERT:
        content = {"title": _string(event, "title"), "text": _text(event), "markdown": _markdown(event)}
    if op is not Op.DELETE:
        content["metadata"] = _metadata(event)
    return Change(
        place=place,
        document_id=document_id,
        op=op,
        version=Version(epoch, number, place.offset),
        event_time=_time(event) or record.timestamp,
        timestamp=record.timestamp,
        **content,
    )


def _parse(value: bytes) -> dict[str, Any]:
    if len(value) > MAX_VALUE_BYTES:
        raise _RejectedError(Reason.TOO_LARGE, f"the value has {len(value)} bytes, at most {MAX_VALUE_BYTES} are read")
    try:
        event = json.loads(value.decode(), parse_constant=_refuse_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise _RejectedError(Reason.INVALID_UTF8, f"the value is not UTF-8: byte {error.start}") from None
    except RecursionError:
        raise _RejectedError(Reason.NESTING, f"the value is nested deeper than {MAX_NESTING} levels") from None
    except ValueError as error:
        raise _RejectedError(Reason.INVALID_JSON, f"the value is not JSON: {_position(error)}") from None
    if not isinstance(event, dict):
        raise _RejectedError(Reason.SCHEMA, f"the value is a JSON {_kind(event)}, an object was expected")
    if any(depth > MAX_NESTING for depth, _ in walk(event)):
        raise _RejectedError(Reason.NESTING, f"the value is nested deeper than {MAX_NESTING} levels")
    return {name: content for name, content in event.items() if content is not None}  # null counts as absent


def _position(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.removesuffix(' at')} at character {error.pos}"
    return "a number that no JSON reader has to take"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _finite(literal: str) -> float:
    number = float(literal)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number beyond the range of a double")
    return number


def _kind(value: Any) -> str:
    return {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")


def _clean(name: str, text: str) -> str:
    if "\0" in text:
        raise _RejectedError(Reason.NUL_CHARACTER, f"{name} contains the NUL character, which Postgres cannot store")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        detail = f"{name} contains half a surrogate pair at character {error.start}, which is no Unicode text"
        raise _RejectedError(Reason.LONE_SURROGATE, detail) from None
    return text


def _string(event: dict[str, Any], name: str) -> str | None:
    value = event.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _RejectedError(Reason.SCHEMA, f"{name} is a JSON {_kind(value)}, a string was expected")
    return _clean(name, value)


def _op(event: dict[str, Any]) -> Op:
    named = event.get("op")
    if named is None and "text" in event:
        return Op.UPSERT
    if not isinstance(named, str) or named not in list(Op):
        raise _RejectedError(Reason.SCHEMA, "op is absent or unknown, expected upsert, delete or metadata")
    return Op(named)


def _key(key: bytes | None) -> str | None:
    if not key:
        return None
    try:
        return _identifier("the key", _clean("the key", key.decode()))
    except UnicodeDecodeError as error:
        raise _RejectedError(Reason.INVALID_UTF8, f"the key is not UTF-8: byte {error.start}") from None


def _document_id(event: dict[str, Any], key: str | None) -> str:
    named = _string(event, "id")
    if named is None:
        if key is None:
            raise _RejectedError(Reason.MISSING_ID, "neither the key nor the field id names the document")
        return key
    if key is not None and named != key:
        raise _RejectedError(Reason.ID_MISMATCH, "the key and the field id name different documents")
    return _identifier("id", named)


def _identifier(name: str, text: str) -> str:
    if not 1 <= len(text) <= MAX_ID_CHARACTERS:
        raise _RejectedError(Reason.SCHEMA, f"{name} has {len(text)} characters, expected 1 to {MAX_ID_CHARACTERS}")
    return text


def _refuse_reserved(document_id: str, record: Record) -> None:
    """No producer may write by accident what no reader would see. Who deletes it does no harm."""
    reserved = record.value is not None and document_id.startswith(CANARY_PREFIX)
    if reserved and CANARY_HEADER not in dict(record.headers):
        detail = f"the id begins with {CANARY_PREFIX}, which is kept for livedex canary: no reader would see the document"
        raise _RejectedError(Reason.SCHEMA, detail)


def _version(event: dict[str, Any], record: Record) -> int:
    if record.value is None:
        return _header_version(record)
    number = event.get("version")
    if number is None:
        raise _RejectedError(Reason.MISSING_VERSION, "version is absent, the collection takes versions from its source")
    if type(number) is not int or not 0 <= number <= MAX_VERSION:
        raise _RejectedError(Reason.SCHEMA, f"version is no integer from 0 to {MAX_VERSION}")
    return number


def _header_version(record: Record) -> int:
    value = next((value for name, value in reversed(record.headers) if name == VERSION_HEADER), None)
    if value is None:
        raise _RejectedError(Reason.MISSING_VERSION, f"a null value needs the header {VERSION_HEADER} to say its version")
    if not _NATURAL.fullmatch(value) or int(value) > MAX_VERSION:
        raise _RejectedError(Reason.SCHEMA, f"the header {VERSION_HEADER} is no integer from 0 to {MAX_VERSION}")
    return int(value)


def _text(event: dict[str, Any]) -> str:
    text = event.get("text")
    if not isinstance(text, str):
        found = "absent" if text is None else f"a JSON {_kind(text)}"
        raise _RejectedError(Reason.SCHEMA, f"text is {found}, an upsert needs a string")
    size = len(_clean("text", text).encode())
    if size > MAX_TEXT_BYTES:
        raise _RejectedError(Reason.TOO_LARGE, f"text has {size} bytes of UTF-8, at most {MAX_TEXT_BYTES} are taken")
    return text


def _markdown(event: dict[str, Any]) -> bool:
    named = event.get("format", "markdown")
    if named not in ("text", "markdown"):
        raise _RejectedError(Reason.SCHEMA, "format is unknown, expected text or markdown")
    return bool(named == "markdown")


def _metadata(event: dict[str, Any]) -> dict[str, Any]:
    metadata = event.get("metadata", {})
    if not isinstance(metadata, dict):
        raise _RejectedError(Reason.SCHEMA, f"metadata is a JSON {_kind(metadata)}, an object was expected")
    for _, text in walk(metadata):
        _clean("metadata", text)
    return metadata


def _time(event: dict[str, Any]) -> datetime | None:
    literal = _string(event, "time")
    if literal is None:
        return None
    moment = parse_time(literal)
    if moment is None:
        detail = "time is no RFC 3339 date and time with an offset in the years 1 to 9999, such as 2026-11-23T10:00:00Z"
        raise _RejectedError(Reason.SCHEMA, detail)
    return moment
