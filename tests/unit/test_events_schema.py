"""schema/events says to other languages what `decode` does: the same events are taken and refused."""

import calendar
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from livedex.config import DEFAULT_TOPIC, SourceSettings
from livedex.core.change import (
    MAX_ID_CHARACTERS,
    MAX_TEXT_BYTES,
    MAX_VERSION,
    VERSION_HEADER,
    Change,
    Op,
    Reason,
    Rejection,
    VersionMode,
    decode,
)
from livedex.kafka import MAX_REQUEST_BYTES
from livedex.resources import schema_dir
from support.records import record, reproducible

FOLDER = schema_dir() / "events"
SCHEMA: dict[str, Any] = json.loads((FOLDER / "change.v1.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

# What a schema of the value cannot say: it sees neither the bytes, nor the key, nor the collection's settings.
BEYOND_A_SCHEMA = {
    Reason.INVALID_UTF8: "before there is a JSON value",
    Reason.INVALID_JSON: "before there is a JSON value",
    Reason.NESTING: "a schema does not count levels",
    Reason.LONE_SURROGATE: "not every language can hold half a pair in a pattern",
    Reason.TOO_LARGE: "the limit is in bytes of UTF-8",
    Reason.MISSING_ID: "the key may carry the id",
    Reason.ID_MISMATCH: "the key is beside the value",
    Reason.MISSING_VERSION: "the collection's version mode decides",
}


def verdict(event: Any) -> Change | Rejection:
    """What decode makes of an event with a version, in source mode; without one, in log mode."""
    mode = VersionMode.SOURCE if isinstance(event, dict) and event.get("version") is not None else VersionMode.LOG
    key = None if isinstance(event, dict) and isinstance(event.get("id"), str) else b"key"
    return decode(record(json.dumps(event).encode(), key=key), mode=mode, epoch=0)


def agree(event: Any) -> bool:
    """Whether schema and decode agree on an event; True too where a schema cannot say it, and only decode refuses."""
    found, valid = verdict(event), VALIDATOR.is_valid(event)
    if isinstance(found, Change) or not valid:
        return valid is isinstance(found, Change)
    return found.reason in BEYOND_A_SCHEMA or (found.reason is Reason.SCHEMA and (lossy(event) or timeless(event)))


def lossy(event: dict[str, Any]) -> bool:
    """Whether the version is written as 42.0: an integer for a schema, but a parser may have lost digits of it."""
    return isinstance(event.get("version"), float)


def timeless(event: dict[str, Any]) -> bool:
    """Whether the time is in no calendar, or at the ends of the years 1 to 9999: a pattern cannot tell."""
    found = re.match(r"([0-9]{4})-([0-9]{2})-([0-9]{2})", str(event.get("time")))
    if found is None:
        return False
    year, month, day = map(int, found.groups())
    return year in (0, 1, 9999) or day > calendar.monthrange(year, month)[1]


def test_the_schema_is_valid_and_self_contained() -> None:
    """It is a schema of the dialect that it names, and needs no other file."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$schema"]
    assert {ref for ref in _values(SCHEMA, "$ref") if not str(ref).startswith("#/$defs/")} == set()


def test_limits_are_those_of_the_code() -> None:
    """The numbers that are in both places are the same."""
    fields, upsert = SCHEMA["properties"], SCHEMA["$defs"]["upsert"]["properties"]
    assert (fields["id"]["minLength"], fields["id"]["maxLength"]) == (1, MAX_ID_CHARACTERS)
    assert (fields["version"]["minimum"], fields["version"]["maximum"]) == (0, MAX_VERSION)
    assert upsert["text"]["maxLength"] == MAX_TEXT_BYTES
    assert set(fields["op"]["enum"]) == {*Op, None}


def test_every_field_is_explained() -> None:
    """Title and description for those who write a producer, and examples that are valid."""
    described = [SCHEMA, *SCHEMA["$defs"].values(), *SCHEMA["properties"].values()]
    described += [field for name, field in SCHEMA["$defs"]["upsert"]["properties"].items() if name not in ("op", "metadata")]
    for part in described:
        assert part["title"], part
        assert part["description"], part
        for example in part.get("examples", ()):
            # a part is the schema of its examples, with the definitions of the whole
            jsonschema.Draft202012Validator({**part, "$defs": SCHEMA["$defs"]}).validate(example)
    assert {verdict(event).op for event in SCHEMA["examples"] if isinstance(verdict(event), Change)} == set(Op)  # type: ignore[union-attr]
    assert all(isinstance(verdict(event), Change) for event in SCHEMA["examples"])


# --- agreement --------------------------------------------------------------------------------------------------

VALID: list[dict[str, Any]] = [
    {"text": ""},
    {"id": "a", "text": "x"},
    {"id": "i" * 512, "text": "x"},
    {"id": "\U0001f600" * 512, "text": "x"},
    {"id": None, "op": None, "version": None, "time": None, "title": None, "format": None, "metadata": None, "text": "x"},
    {"op": "upsert", "text": "x", "format": "text", "title": ""},
    {"op": "upsert", "text": "x", "metadata": {"n": {"m": [1, None, True, "x"]}}},
    {"text": "x", "version": 0},
    {"text": "x", "version": MAX_VERSION},
    {"text": "x", "time": "2016-12-31T23:59:60.5-08:00"},
    {"text": "x", "extra": {"\0": "\0"}},
    {"op": "delete"},
    {"op": "delete", "title": 5, "text": 5, "format": 5, "metadata": 5},
    {"op": "metadata"},
    {"op": "metadata", "text": 5, "metadata": {"n": 1}},
]
WRONG: list[tuple[str, list[Any]]] = [
    ("op", ["UPSERT", "", 5, []]),
    ("id", ["", "i" * 513, "\n\0", 5, []]),
    ("version", [-1, 2**63, 1.5, True, "1", []]),
    ("time", ["", "2026-11-23", "2026-11-23T10:00:00", "2026-13-01T00:00:00Z", "2026-11-23T24:00:00Z", 5]),
    ("time", ["2026-11-23T10:00:00Z\n", "٢٠٢٦-11-23T10:00:00Z", "2026-11-23T10:00:00Z\0"]),
    ("title", ["a\0b", 5, []]),
    ("text", ["\0", "a\n\0", None, 5, {}]),
    ("format", ["md", "", 5]),
    ("metadata", [[], "x", 5, False, {"\0": 1}, {"n": "\0"}, {"n": {"\0": 1}}, {"n": [["\0"]]}]),
]
INVALID: list[Any] = [
    *[None, [], "text", 5, True, {}, {"title": "x"}, {"text": None}, {"op": "upsert"}],
    *[{"op": "metadata", "metadata": value} for value in WRONG[-1][1]],
    *[{"text": "x", name: value} for name, values in WRONG for value in values],
]
REFUSED_BY_DECODE_ONLY: list[tuple[Reason, dict[str, Any]]] = [
    (Reason.LONE_SURROGATE, {"text": "\ud800"}),
    (Reason.TOO_LARGE, {"text": "é" * (MAX_TEXT_BYTES // 2 + 1)}),
    (Reason.SCHEMA, {"text": "x", "version": 42.0}),
    (Reason.SCHEMA, {"text": "x", "time": "2026-02-30T00:00:00Z"}),
    (Reason.SCHEMA, {"text": "x", "time": "0000-01-01T00:00:00Z"}),
    (Reason.SCHEMA, {"text": "x", "time": "0001-01-01T00:00:00+01:00"}),
]


@pytest.mark.parametrize("event", VALID, ids=range(len(VALID)))
def test_both_take(event: dict[str, Any]) -> None:
    """Examples on the inner side of the rules."""
    VALIDATOR.validate(event)
    assert isinstance(verdict(event), Change), verdict(event)


@pytest.mark.parametrize("event", INVALID, ids=range(len(INVALID)))
def test_both_refuse(event: Any) -> None:
    """Examples on the outer side of the rules."""
    assert not VALIDATOR.is_valid(event)
    assert isinstance(verdict(event), Rejection)


@pytest.mark.parametrize(("reason", "event"), REFUSED_BY_DECODE_ONLY, ids=range(len(REFUSED_BY_DECODE_ONLY)))
def test_only_decode_refuses(reason: Reason, event: dict[str, Any]) -> None:
    """The rules that the schema's comment names, because it cannot have them."""
    found = verdict(event)
    assert isinstance(found, Rejection)
    assert found.reason is reason
    assert VALIDATOR.is_valid(event)
    assert agree(event)


clean = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), min_size=1, max_size=5)
texts = clean | st.sampled_from(["", "\0", "a\0\n", "\ud800", "i" * 513])


def json_of(strings: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Any JSON with these strings and names."""
    numbers = st.integers(-2, 2) | st.floats(allow_nan=False, allow_infinity=False)
    return st.recursive(
        st.none() | st.booleans() | numbers | strings,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings, inner, max_size=3),
        max_leaves=6,
    )


times = st.from_regex(SCHEMA["properties"]["time"]["pattern"].replace("(?!\\n)$", r"\Z")).map(lambda time: f"2{time[1:]}")
sound = st.fixed_dictionaries(
    {},
    optional={
        "op": st.sampled_from([*Op, None]),
        "id": clean,
        "version": st.none() | st.integers(0, 3) | st.just(MAX_VERSION),
        "time": st.none() | times,
        "title": st.none() | clean,
        "text": clean,
        "format": st.sampled_from(["text", "markdown", None]),
        "metadata": st.none() | st.dictionaries(clean, json_of(clean), max_size=3),
        "extra": json_of(texts),
    },
)
broken = st.one_of(
    json_of(texts),
    st.dictionaries(texts, json_of(texts), max_size=2),
    st.sampled_from([-1, MAX_VERSION + 1, 2**64, 1.0, 1.5, -0.0, True]),
    st.sampled_from(["0000-02-30T10:00:00Z", "2026-11-23T10:00:00Z\n", "2026-11-23T25:00:00Z", "0001-01-01T00:00:00+01:00"]),
)
fields = st.sampled_from(["op", "id", "version", "time", "title", "text", "format", "metadata"])
damaged = st.tuples(sound, fields, broken).map(lambda parts: {**parts[0], parts[1]: parts[2]})


def test_any_event_is_taken_or_refused_by_both() -> None:
    """Whatever the event, schema and decode agree; the run sees many of either verdict."""
    verdicts = {Change: 0, Rejection: 0}

    @settings(reproducible, max_examples=700)
    @given(sound | damaged | json_of(texts))
    def run(event: Any) -> None:
        verdicts[type(verdict(event))] += 1
        assert agree(event), f"schema {[error.message for error in VALIDATOR.iter_errors(event)]}, decode {verdict(event)}"

    run()
    assert min(verdicts.values()) > 150, verdicts


# --- AsyncAPI ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The AsyncAPI document."""
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / "asyncapi.yaml").read_text(encoding="utf-8"))
    return loaded


def test_every_reference_of_the_document_leads_somewhere(document: dict[str, Any]) -> None:
    """References inside the document and to files beside it."""
    references = list(_values(document, "$ref"))
    assert len(references) >= 5
    for reference in references:
        file, _, pointer = reference.partition("#")
        found: Any = document if not file else json.loads((FOLDER / Path(file)).read_text(encoding="utf-8"))
        for step in filter(None, pointer.split("/")):
            found = found[step]
        assert found


def test_the_document_describes_the_topic(document: dict[str, Any]) -> None:
    """Topic, partitions and size are those that `livedex apply` makes without settings, livedex being who receives."""
    assert document["asyncapi"].startswith("3.")
    channel = document["channels"]["documents"]
    assert channel["address"] == channel["bindings"]["kafka"]["topic"] == DEFAULT_TOPIC
    assert channel["bindings"]["kafka"]["partitions"] == SourceSettings(collection="default").partitions
    assert channel["bindings"]["kafka"]["topicConfiguration"]["max.message.bytes"] == MAX_REQUEST_BYTES
    assert [operation["action"] for operation in document["operations"].values()] == ["receive"]


def test_the_messages_are_what_decode_reads(document: dict[str, Any]) -> None:
    """The payload is the JSON Schema; the examples decode; the header of a tombstone gives its version."""
    change, tombstone = (document["components"]["messages"][name] for name in ("change", "tombstone"))
    assert change["payload"]["schema"] == {"$ref": "./change.v1.json"}
    for example in change["examples"]:
        VALIDATOR.validate(example["payload"])
        assert isinstance(verdict(example["payload"]), Change)
    assert {verdict(example["payload"]).op for example in change["examples"]} == set(Op)  # type: ignore[union-attr]
    (example,) = tombstone["examples"]
    headers = tuple((name, value.encode()) for name, value in example["headers"].items())
    deletion = decode(record(example["payload"], headers=headers), mode=VersionMode.SOURCE, epoch=0)
    assert isinstance(deletion, Change)
    assert (deletion.op, deletion.version.number) == (Op.DELETE, int(example["headers"][VERSION_HEADER]))
    key = document["components"]["schemas"]["documentId"]
    assert (key["minLength"], key["maxLength"]) == (1, MAX_ID_CHARACTERS)


def _values(part: Any, name: str) -> list[str]:
    """All values under `name`, at any depth."""
    if isinstance(part, list):
        return [value for inner in part for value in _values(inner, name)]
    if not isinstance(part, dict):
        return []
    own = [part[name]] if isinstance(part.get(name), str) else []
    return own + [value for inner in part.values() for value in _values(inner, name)]
