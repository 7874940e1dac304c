"""What `decode` promises: every rule of the change event, on both sides of every limit, and never an exception."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livedex.core.change import (
    MAX_TEXT_BYTES,
    MAX_VALUE_BYTES,
    MAX_VERSION,
    Change,
    Op,
    Reason,
    Rejection,
    VersionMode,
    decode,
)
from livedex.core.record import Record
from support.records import NOON, record, reproducible

LOG, SOURCE = VersionMode.LOG, VersionMode.SOURCE
HEADER = "livedex-version"
SECRET = "xyzzy"  # stands for document text, which no detail may show


def accepted(read: Record, mode: VersionMode = LOG, epoch: int = 0) -> Change:
    """The change of a record that must be one."""
    result = decode(read, mode=mode, epoch=epoch)
    assert isinstance(result, Change), result
    return result


def rejected(read: Record, mode: VersionMode = LOG) -> Rejection:
    """Why a record is no change, which it must not be."""
    result = decode(read, mode=mode, epoch=0)
    assert isinstance(result, Rejection), result
    return result


def upsert(**fields: Any) -> Record:
    """An upsert with these fields, its id from the key."""
    return record({"op": "upsert", "text": "", **fields})


def raw(fields: str) -> Record:
    """An upsert with fields written in JSON by hand, first."""
    return record(b'{%s, "text": ""}' % fields.encode())


# --- every reason -----------------------------------------------------------------------------------------------

REJECTIONS: list[tuple[Reason, str, Record]] = [
    (Reason.INVALID_UTF8, "value in another encoding", record('{"text": "é"}'.encode("latin-1"))),
    (Reason.INVALID_UTF8, "value in UTF-16", record('{"text": "e"}'.encode("utf-16"))),
    (Reason.INVALID_UTF8, "surrogate as bytes", record(b'{"text": "\xed\xa0\x80"}')),
    (Reason.INVALID_UTF8, "overlong form", record(b'{"text": "\xc0\x80"}')),
    (Reason.INVALID_UTF8, "cut character", record(b'{"text": "\xc3"}')),
    (Reason.INVALID_UTF8, "key", record({"text": ""}, key=b"\xff")),
    (Reason.INVALID_UTF8, "surrogate as bytes in the key", record({"text": ""}, key=b"\xed\xa0\x80")),
    (Reason.INVALID_UTF8, "key of a tombstone", record(None, key=b"\xff")),
    (Reason.INVALID_JSON, "empty value", record(b"")),
    (Reason.INVALID_JSON, "cut object", record(b'{"text": ')),
    (Reason.INVALID_JSON, "something after the object", record(b'{"text": ""} x')),
    (Reason.INVALID_JSON, "byte order mark", record(b'\xef\xbb\xbf{"text": ""}')),
    (Reason.INVALID_JSON, "bare newline in a string", record(b'{"text": "a\nb"}')),
    (Reason.INVALID_JSON, "bad escape", record(rb'{"text": "\x41"}')),
    (Reason.INVALID_JSON, "single quotes", record(b"{'text': ''}")),
    (Reason.INVALID_JSON, "trailing comma", record(b'{"text": "",}')),
    (Reason.INVALID_JSON, "comment", record(b'{"text": ""} // x')),
    *((Reason.INVALID_JSON, f"{name} in metadata", raw(f'"metadata": {{"n": {name}}}'))
      for name in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999")),
    (Reason.INVALID_JSON, "1e999 in an unknown field", raw('"extra": 1e999')),
    (Reason.INVALID_JSON, "integer of 5,000 digits", raw(f'"metadata": {{"n": {"9" * 5000}}}')),
    (Reason.SCHEMA, "array", record(b"[]")),
    (Reason.SCHEMA, "null as JSON", record(b"null")),
    (Reason.SCHEMA, "string", record(b'"upsert"')),
    (Reason.SCHEMA, "number", record(b"1")),
    (Reason.SCHEMA, "boolean", record(b"true")),
    (Reason.SCHEMA, "empty object", record({})),
    (Reason.SCHEMA, "no op and no text", record({"id": "a", "title": "A"})),
    (Reason.SCHEMA, "no op and null text", record({"text": None})),
    (Reason.SCHEMA, "unknown op", upsert(op="insert")),
    (Reason.SCHEMA, "op in capitals", upsert(op="UPSERT")),
    (Reason.SCHEMA, "op that is no string", upsert(op=["upsert"])),
    (Reason.SCHEMA, "upsert without text", record({"op": "upsert"})),
    (Reason.SCHEMA, "upsert with null text", upsert(text=None)),
    (Reason.SCHEMA, "text that is no string", upsert(text=5)),
    (Reason.SCHEMA, "title that is no string", upsert(title={})),
    (Reason.SCHEMA, "id that is no string", upsert(id=5)),
    (Reason.SCHEMA, "unknown format", upsert(format="html")),
    (Reason.SCHEMA, "format that is no string", upsert(format=[])),
    (Reason.SCHEMA, "metadata that is no object", upsert(metadata=[])),
    (Reason.SCHEMA, "metadata that is a string, in a metadata event", record({"op": "metadata", "metadata": ""})),
    (Reason.SCHEMA, "time that is no string", upsert(time=0)),
    (Reason.SCHEMA, "empty id", record({"id": "", "text": ""}, key=None)),
    (Reason.SCHEMA, "id of 513 characters", record({"id": "i" * 513, "text": ""}, key=None)),
    (Reason.SCHEMA, "key of 513 characters", record({"text": ""}, key=b"k" * 513)),
    (Reason.SCHEMA, "key of 513 characters of a tombstone", record(None, key=b"k" * 513)),
    (Reason.MISSING_ID, "no key and no id", record({"text": ""}, key=None)),
    (Reason.MISSING_ID, "empty key and no id", record({"text": ""}, key=b"")),
    (Reason.MISSING_ID, "no key and null id", record({"id": None, "text": ""}, key=None)),
    (Reason.MISSING_ID, "tombstone without a key", record(None, key=None)),
    (Reason.ID_MISMATCH, "key and id differ", upsert(id="b")),
    (Reason.ID_MISMATCH, "composed and decomposed", record({"id": "e\u0301", "text": ""}, key="é".encode())),
    (Reason.TOO_LARGE, "one byte of text too many", upsert(text="a" * (MAX_TEXT_BYTES + 1))),
    (Reason.TOO_LARGE, "few characters, many bytes", upsert(text="é" * (MAX_TEXT_BYTES // 2) + "a")),
    (Reason.TOO_LARGE, "value that is not even read", record(b" " * (MAX_VALUE_BYTES + 1))),
    *((Reason.NUL_CHARACTER, f"in {name}", upsert(**{name: "a\0"})) for name in ("text", "title", "id", "time")),
    (Reason.NUL_CHARACTER, "in the key", record({"text": ""}, key=b"a\0")),
    (Reason.NUL_CHARACTER, "in a name of metadata", upsert(metadata={"n": {"\0": 1}})),
    (Reason.NUL_CHARACTER, "in a value of metadata", upsert(metadata={"n": ["a", ["\0"]]})),
    (Reason.NUL_CHARACTER, "in a metadata event", record({"op": "metadata", "metadata": {"n": "\0"}})),
    *((Reason.LONE_SURROGATE, f"in {name}", upsert(**{name: "a\ud800"})) for name in ("text", "title", "id", "time")),
    (Reason.LONE_SURROGATE, "the second half", upsert(text="\udfffa")),
    (Reason.LONE_SURROGATE, "halves in the wrong order", upsert(text="\ude00\ud83d")),
    (Reason.LONE_SURROGATE, "in a name of metadata", upsert(metadata={"\ud800": 1})),
    (Reason.LONE_SURROGATE, "in a value of metadata", upsert(metadata={"n": [{"m": "\udc00"}]})),
    (Reason.NESTING, "101 levels", raw(f'"metadata": {{"n": {"[" * 99}{"]" * 99}}}')),
    (Reason.NESTING, "101 levels of an unknown field", raw(f'"extra": {"[" * 100}{"]" * 100}')),
    (Reason.NESTING, "100,000 arrays", record(b"[" * 100_000 + b"]" * 100_000)),
    (Reason.NESTING, "100,000 arrays that do not end", record(b'{"text": "", "x": ' + b"[" * 100_000)),
    (Reason.NESTING, "100,000 objects", record(b'{"n":' * 100_000 + b"1" + b"}" * 100_000)),
]  # fmt: skip

NO_VERSIONS: list[Any] = [-1, 2**63, True, False, 1.5, 42.0, "42", [], {}]
SOURCE_REJECTIONS: list[tuple[Reason, str, Record]] = [
    (Reason.MISSING_VERSION, "absent", upsert()),
    (Reason.MISSING_VERSION, "null", upsert(version=None)),
    (Reason.MISSING_VERSION, "in the header, where it does not belong", record({"text": ""}, headers=((HEADER, b"1"),))),
    (Reason.MISSING_VERSION, "of a delete", record({"op": "delete"})),
    (Reason.MISSING_VERSION, "of metadata", record({"op": "metadata"})),
    (Reason.MISSING_VERSION, "of a tombstone without headers", record(None)),
    (Reason.MISSING_VERSION, "of a tombstone with another header", record(None, headers=(("version", b"1"),))),
    (Reason.MISSING_VERSION, "of a tombstone, null", record(None, headers=((HEADER, None),))),
    *((Reason.SCHEMA, f"version {json.dumps(version)}", upsert(version=version))
      for version in NO_VERSIONS),
    (Reason.SCHEMA, "version 1e3", raw('"version": 1e3')),
    *((Reason.SCHEMA, f"header {value[:24]!r}", record(None, headers=((HEADER, value),)))
      for value in (b"", b"-1", b"+1", b" 1", b"1 ", b"1\n", b"1.0", b"1e3", b"x", b"\xff", "٣".encode(), b"0x1",
                    str(2**63).encode(), b"9" * 5000)),
]  # fmt: skip


def versioned(event: Record) -> Record:
    """The same with a version, where there is something to put it in."""
    if event.value is None:
        return replace(event, headers=((HEADER, b"1"),))
    if event.value.startswith(b"{") and event.value != b"{}":
        return replace(event, value=b'{"version": 1, ' + event.value[1:])
    return event


@pytest.mark.parametrize("mode", [LOG, SOURCE])
@pytest.mark.parametrize(("reason", "what", "broken"), [pytest.param(*case, id=f"{case[0]}-{case[1]}") for case in REJECTIONS])
def test_a_broken_record_is_rejected_with_its_reason(mode: VersionMode, reason: Reason, what: str, broken: Record) -> None:
    """Each reason of the contract, in both version modes; a version is there where the mode needs one."""
    found = rejected(broken if mode is LOG else versioned(broken), mode)
    assert (found.reason, bool(found.detail)) == (reason, True), f"{what}: {found.detail}"


@pytest.mark.parametrize(
    ("reason", "what", "broken"), [pytest.param(*case, id=f"{case[0]}-{case[1]}") for case in SOURCE_REJECTIONS]
)
def test_versions_matter_in_source_mode_only(reason: Reason, what: str, broken: Record) -> None:
    """What source mode rejects for its version, log mode takes and numbers by the offset."""
    assert rejected(broken, SOURCE).reason == reason, what
    assert accepted(broken, LOG).version == (0, broken.offset, broken.offset)


def test_the_tables_have_every_reason() -> None:
    """No reason of the contract is without an example, but for those that are not in the record."""
    found_elsewhere = {Reason.EMBEDDING_FAILED, Reason.STORING_FAILED, Reason.UNREADABLE}
    assert {case[0] for case in REJECTIONS + SOURCE_REJECTIONS} == set(Reason) - found_elsewhere


def test_the_limits_are_those_of_the_contract() -> None:
    """The tests around them use these names."""
    assert (MAX_TEXT_BYTES, MAX_VALUE_BYTES, MAX_VERSION) == (10_485_760, 33_554_432, 9_223_372_036_854_775_807)


# --- limits, seen from inside -----------------------------------------------------------------------------------


@pytest.mark.parametrize("document_id", ["i", "i" * 512, "\U0001f600" * 512, " ", "a/b c#d", "e\u0301", "\n"])
def test_ids_up_to_512_characters_are_taken_as_they_are(document_id: str) -> None:
    """Characters are code points; nothing is trimmed or normalised, in the key as in the field."""
    assert accepted(record({"text": ""}, key=document_id.encode())).document_id == document_id
    assert accepted(record({"text": "", "id": document_id}, key=None)).document_id == document_id
    assert accepted(record({"text": "", "id": document_id}, key=b"")).document_id == document_id
    assert accepted(record({"text": "", "id": document_id}, key=document_id.encode())).document_id == document_id


@pytest.mark.parametrize("event", [{"text": ""}, {"op": "metadata", "metadata": {}}, {"op": "delete"}])
def test_ids_of_canaries_are_kept_for_records_that_say_they_are_theirs(event: dict[str, Any]) -> None:
    """An id below livedex-canary/ needs the header livedex-canary, with any value; only a tombstone does without it."""
    key = b"livedex-canary/index/0"
    found = rejected(record(event, key=key))
    assert found.reason is Reason.SCHEMA
    assert "kept for livedex canary" in found.detail
    assert found.document_id == key.decode()
    for value in (b"1", b"", None):
        assert accepted(record(event, key=key, headers=(("livedex-canary", value),))).document_id == key.decode()
    assert accepted(record(None, key=key)).op is Op.DELETE
    assert accepted(record({"text": ""}, key=b"livedex-canary")).document_id == "livedex-canary"


@pytest.mark.parametrize("text", ["a" * MAX_TEXT_BYTES, "é" * (MAX_TEXT_BYTES // 2)], ids=["ascii", "two bytes each"])
def test_text_of_exactly_10_mib_is_taken(text: str) -> None:
    """The limit is in bytes of UTF-8, however long the JSON that carries them."""
    assert accepted(upsert(text=text)).text == text


def test_a_value_of_exactly_32_mib_is_read() -> None:
    """What a topic of ours can carry is parsed."""
    value = b'{"text": ""}'
    assert accepted(record(value + b" " * (MAX_VALUE_BYTES - len(value)))).text == ""


def test_one_hundred_levels_are_taken() -> None:
    """The event itself is the first level, and metadata, where it is, the second."""
    fields = f'"metadata": {{"n": {"[" * 98}"x"{"]" * 98}}}, "extra": {"[" * 99}{"]" * 99}'
    assert list(accepted(raw(fields)).metadata) == ["n"]


@pytest.mark.parametrize("number", [0, 1, 42, 2**53 + 1, MAX_VERSION])
def test_versions_up_to_2_63_are_exact(number: int) -> None:
    """As a field, and as the header of a tombstone; epoch and offset complete the version."""
    event = record({"text": "", "version": number}, offset=7)
    assert accepted(event, SOURCE, epoch=3).version == (3, number, 7)
    tombstone = record(None, offset=8, headers=((HEADER, str(number).encode()),))
    assert accepted(tombstone, SOURCE, epoch=3).version == (3, number, 8)
    assert accepted(tombstone, LOG, epoch=3).version == (3, 8, 8)


def test_large_numbers_within_json_readers_limits_are_kept() -> None:
    """Integers beyond 64 bits stay exact, and the largest double is no infinity."""
    big = "9" * 4300
    metadata = accepted(raw(f'"metadata": {{"n": {big}, "d": 1.7976931348623157e308, "tiny": 1e-999}}')).metadata
    assert metadata == {"n": int(big), "d": 1.7976931348623157e308, "tiny": 0.0}


# --- what the fields mean ---------------------------------------------------------------------------------------


def test_a_whole_upsert() -> None:
    """Every field arrives, unknown ones do not matter."""
    fields = {"op": "upsert", "id": "a", "version": 42, "time": "2026-11-23T10:00:00Z", "title": "T", "text": "x",
              "format": "text", "metadata": {"n": [1, None]}, "extra": {"\0": "\ud800"}}  # fmt: skip
    event = record(fields, offset=9)
    change = accepted(event, SOURCE)
    assert change == Change(
        place=event.place,
        document_id="a",
        op=Op.UPSERT,
        version=change.version,
        event_time=datetime(2026, 11, 23, 10, tzinfo=UTC),
        timestamp=NOON,
        title="T",
        text="x",
        markdown=False,
        metadata={"n": [1, None]},
    )
    assert change.version == (0, 42, 9)


def test_absent_and_null_fields_are_the_same() -> None:
    """The defaults: an upsert of Markdown without a title, metadata or a time of its own."""
    null = upsert(op=None, id=None, version=None, time=None, title=None, format=None, metadata=None)
    change = accepted(null)
    assert change == accepted(record({"text": ""}))
    assert (change.op, change.title, change.markdown, change.metadata) == (Op.UPSERT, None, True, {})
    assert change.event_time == change.timestamp == NOON


@pytest.mark.parametrize("op", [Op.DELETE, Op.METADATA])
def test_only_an_upsert_has_content(op: Op) -> None:
    """Fields that mean nothing for an operation are not even looked at."""
    change = accepted(record({"op": op, "text": 5, "title": "\0", "format": "html"}))
    assert (change.op, change.title, change.text, change.metadata) == (op, None, "", {})


def test_a_delete_has_no_metadata() -> None:
    """Not even broken metadata keeps a document alive."""
    assert accepted(record({"op": "delete", "metadata": "\0"})).metadata == {}


@pytest.mark.parametrize("mode", [LOG, SOURCE])
def test_a_null_value_is_a_delete(mode: VersionMode) -> None:
    """The key names the document; of several headers the last one counts, and other headers do not matter."""
    headers = (("trace", b"\xff"), (HEADER, b"6"), (HEADER, b"007"), ("other", None))
    change = accepted(record(None, offset=5, headers=headers), mode)
    assert (change.document_id, change.op, change.version.number) == ("a", Op.DELETE, 5 if mode is LOG else 7)


def test_of_duplicate_fields_the_last_one_counts() -> None:
    """What most JSON readers do; a broken value that is not used does no harm."""
    change = accepted(record(rb'{"text": "\u0000", "text": "b", "metadata": {"n": "\ud800", "n": 2}}'))
    assert (change.text, change.metadata) == ("b", {"n": 2})


def test_escaped_pairs_are_one_character() -> None:
    """A surrogate pair in JSON's escapes is text like any other."""
    assert accepted(record(rb'{"text": "\ud83d\ude00"}')).text == "\U0001f600"


def test_text_is_kept_to_the_character() -> None:
    """Nothing is normalised, trimmed or translated."""
    text = "\ufeff e\u0301\r\n\r\t\u2028\x7f\x1f  "
    assert accepted(upsert(text=text, title=text)).text == text
    assert accepted(upsert(text=text, title=text)).title == text


TIMES = {
    "2026-11-23T10:00:00Z": "2026-11-23T10:00:00+00:00",
    "2026-11-23t10:00:00z": "2026-11-23T10:00:00+00:00",
    "2026-11-23 10:00:00Z": "2026-11-23T10:00:00+00:00",
    "2026-11-23T10:00:00-00:00": "2026-11-23T10:00:00+00:00",
    "2026-11-23T10:00:00+05:30": "2026-11-23T04:30:00+00:00",
    "2026-11-23T23:59:59-23:59": "2026-11-24T23:58:59+00:00",
    "2026-11-23T10:00:00.5Z": "2026-11-23T10:00:00.500000+00:00",
    "2026-11-23T10:00:00.123456789Z": "2026-11-23T10:00:00.123456+00:00",
    "2028-02-29T00:00:00Z": "2028-02-29T00:00:00+00:00",
    "2016-12-31T23:59:60Z": "2017-01-01T00:00:00+00:00",
    "2016-12-31T18:59:60.25-05:00": "2017-01-01T00:00:00.250000+00:00",
    "0001-01-01T00:00:00Z": "0001-01-01T00:00:00+00:00",
    "0001-01-01T00:00:00-01:00": "0001-01-01T01:00:00+00:00",
    "9999-12-31T23:59:59.999999Z": "9999-12-31T23:59:59.999999+00:00",
    "9999-12-31T23:59:59+01:00": "9999-12-31T22:59:59+00:00",
}
NO_TIMES = [
    *["", " ", "now", "1795428000", "2026-11-23", "10:00:00Z", "2026-11-23T10:00:00", "2026-11-23T10:00Z", "20261123T100000Z"],
    *["2026-11-23T10:00:00+0100", "2026-11-23T10:00:00+01", "2026-11-23T10:00:00 Z", "2026-11-23T10:00:00Z\n"],
    *["2026-11-23_10:00:00Z", "2026-11-23T10:00:00,5Z", "2026-11-23T10:00:00.Z", " 2026-11-23T10:00:00Z"],
    *["2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-11-31T00:00:00Z", "2026-11-00T00:00:00Z", "2027-02-29T00:00:00Z"],
    *["2026-11-23T24:00:00Z", "2026-11-23T10:60:00Z", "2026-11-23T10:00:61Z", "2026-11-23T10:00:00+24:00"],
    *["2026-11-23T10:00:00+05:60", "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "-001-01-01T00:00:00Z"],
    *["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "9999-12-31T23:59:60Z", "٢٠٢٦-11-23T10:00:00Z", "2026-W48-1"],
]


@pytest.mark.parametrize(("literal", "expected"), TIMES.items())
def test_times_of_rfc_3339_are_read(literal: str, expected: str) -> None:
    """With any offset, to the microsecond; a leap second is the second after it."""
    assert accepted(upsert(time=literal)).event_time.isoformat() == expected


@pytest.mark.parametrize("literal", NO_TIMES)
def test_other_times_are_rejected(literal: str) -> None:
    """What RFC 3339 does not know, what no calendar has, and what leaves the years that a database can hold."""
    assert rejected(upsert(time=literal)).reason == Reason.SCHEMA


def test_a_rejection_names_the_document_where_it_can() -> None:
    """By key, or by the field; never by what is no id, which would not fit an index."""
    assert rejected(record(b"{")).document_id == "a"
    assert rejected(record({"id": "b", "text": 5}, key=None)).document_id == "b"
    assert rejected(upsert(id="b")).document_id == "a"
    for broken in (
        record(b"{", key=None),
        record({"text": ""}, key=b"\xff"),
        record({"text": ""}, key=b"k" * 513),
        record({"text": "", "id": "i" * 513}, key=None),
        record({"text": "", "id": "\0"}, key=None),
    ):
        assert rejected(broken).document_id is None


# --- anything at all --------------------------------------------------------------------------------------------

keys = (
    st.none()
    | st.just(b"")
    | st.just(b"a")
    | st.binary(max_size=8)
    | st.text(max_size=520).map(lambda key: key.encode("utf-8", "surrogatepass"))
)
headers = st.lists(
    st.tuples(st.sampled_from([HEADER, "x"]), st.none() | st.just(b"5") | st.binary(max_size=21)), max_size=3
).map(tuple)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["op", "id", "version", "time", "title", "text", "format", "metadata", "extra"]
events = st.dictionaries(st.sampled_from(FIELDS), any_json | st.sampled_from(["upsert", "delete", "metadata", "text", "a", 5]))


def check(read: Record) -> None:
    """Decode in both modes; what is accepted can be stored, what is rejected tells nothing of the text."""
    for mode in VersionMode:
        result = decode(read, mode=mode, epoch=1)
        if isinstance(result, Rejection):
            assert result.reason is not Reason.EMBEDDING_FAILED
            assert result.detail.isascii()
            assert SECRET not in result.detail
            assert len(result.detail) < 200
            ids = [result.document_id] if result.document_id is not None else []
        else:
            assert result.version.epoch == 1
            assert 0 <= result.version.number <= MAX_VERSION
            assert result.event_time.tzinfo is UTC
            assert len(result.text.encode()) <= MAX_TEXT_BYTES
            stored = json.dumps([result.title, result.text, result.metadata], ensure_ascii=False, allow_nan=False)
            stored.encode()
            assert "\\u0000" not in stored.replace("\\\\", "")
            ids = [result.document_id]
        for document_id in ids:
            assert 1 <= len(document_id) <= 512
            assert "\0" not in document_id
            document_id.encode()


@settings(reproducible, max_examples=300)
@given(st.none() | st.binary(max_size=60), keys, headers)
def test_any_bytes(value: bytes | None, key: bytes | None, own: tuple[tuple[str, bytes | None], ...]) -> None:
    """Whatever the bytes of value, key and headers, decode answers."""
    check(record(value, key=key, headers=own))


@settings(reproducible, max_examples=500)
@given(any_json | events, st.sampled_from([b"a", None]))
def test_any_json(value: Any, key: bytes | None) -> None:
    """Whatever the JSON, with lone surrogates, NaN and infinities among it, decode answers."""
    check(record(json.dumps(value).encode(), key=key))
    check(record(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"), key=key))


VALID = json.dumps(
    {
        "op": "upsert",
        "id": "a",
        "version": 42,
        "time": "2026-11-23T10:00:00Z",
        "format": "markdown",
        "title": SECRET,
        "text": f'{SECRET} \\ " \n é {SECRET}',
        "metadata": {SECRET: [SECRET, 1.5e3, {"m": SECRET}]},
        SECRET: SECRET,
    }
).encode()
splices = st.tuples(
    st.integers(0, len(VALID)),
    st.integers(0, 6),
    st.binary(max_size=3)
    | st.sampled_from([b"\\", b'"', b"\\u0000", b"\\ud800", b"null", b"[", b"}", b"1e999", b",", b"-", b"NaN"]),
)


@settings(reproducible, max_examples=1000)
@given(st.lists(splices, min_size=1, max_size=3), st.sampled_from([b"a", None]))
def test_any_damage_to_a_valid_event(damage: list[tuple[int, int, bytes]], key: bytes | None) -> None:
    """Bytes cut out and put in anywhere: no exception, and nothing of the document's text in the detail."""
    value = VALID
    for start, length, replacement in damage:
        value = value[:start] + replacement + value[start + length :]
    check(record(value, key=key))
