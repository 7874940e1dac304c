"""Fuzzes `decode`, guided by the branches that inputs reach: a process of its own, because libFuzzer ends the one it runs in.

    python -m support.faults.fuzz CORPUS [OPTION OF LIBFUZZER]...

It writes its seeds into the folder CORPUS first, and says on stdout now and then, in JSON, what became of how many inputs.
An input that it caught is in a file beside CORPUS. The same seed breeds much the same inputs, not exactly: libFuzzer goes by
addresses too.
"""

import json
import random
import resource
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["livedex.core.change", "livedex.core.moment", "livedex.core.record"]):
    from livedex.core.change import MAX_NESTING, Change, Rejection, VersionMode, decode
    from livedex.core.record import Record

HEAD = 4  # bytes of an input that choose all but the value
LONGEST = 8192  # bytes of an input
MOST_MEMORY = 512 * 2**20  # bytes of the process: more raises MemoryError, which is a catch
SHAPED = 0.5  # share of the mutations that leave the value JSON
SAY_EVERY = 5_000  # inputs
NO_VALUE = 16  # one in so many choices of the first byte is a null value
MODES = (VersionMode.LOG, VersionMode.SOURCE)
KEYS = [None, None, b"", b"a", b"a", b"a", b"\xff", b"x" * 513, "é".encode(), b"\x00"]
TIMESTAMPS = [-1, 0, 1_764_000_000_000, 2**62]
HEADERS: list[tuple[tuple[str, bytes | None], ...]] = [
    (), (("livedex-version", b"7"),), (("livedex-version", None),), (("livedex-version", b"\xff"), ("x", b"y")),
    (("livedex-version", b"9" * 30),),
]  # fmt: skip
SEEDS = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"text": "A text."}',
    b'{"op": "delete", "id": "a", "version": 1}',
    b'{"op": "metadata", "id": "a", "metadata": {"a": [1, 2.5e3, true, null, {"b": "c"}]}}',
    b'{"op": "upsert", "id": "a", "version": 42, "time": "2026-11-23T10:00:60+01:00", "title": "T", "text": "T\\u0041"}',
    b'{"text": "T", "version": 1, "format": "markdown", "metadata": {"lang": "en"}}',
    '{"text": "é 索引 🙂", "id": "ï"}'.encode(),
    b"\x00\x00\x00\x00\x07{}",  # framed by a schema registry
    b'{"text": "T", "deep": ' + b"[" * MAX_NESTING + b"]" * MAX_NESTING + b"}",
    b"[" * (LONGEST - HEAD),
    b'{"a":' * 1_600,
    b'{"version": ' + b"9" * 5_000 + b"}",
    b'{"text": "\\ud800", "metadata": {"\\u0000": 1e999}}',
]
WORDS = [
    "\\u0000", "\\ud800", "\\udc00", "\xff", "\xed\xa0\x80", "\xef\xbb\xbf", "NaN", "-Infinity", "1e999", "true", "null", "-1",
    "18446744073709551616", "1.5", "\\n", "9999-12-31T23:59:60Z", "0000-00-00T00:00:00Z", "2024-02-30T00:00:00+00:00", "//",
]  # fmt: skip
FIELDS = ["op", "id", "version", "time", "title", "text", "format", "metadata", "more", ""]
VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**63, 10**400, "", "a", "\0", "\ud800", "x" * 600, [], {}, [[]], {"a": {"b": []}}, "delete",
    "2026-11-23T10:00:00Z", "10000-01-01T00:00:00Z", "text", "upsert", "metadata",
]  # fmt: skip

counts: Counter[str] = Counter()


def record_of(data: bytes) -> Record:
    """The record that an input stands for: its head chooses, the rest is the value."""
    mode, key, header, timestamp = data[:HEAD].ljust(HEAD, b"\0")
    return Record(
        topic="t", partition=0, offset=mode, timestamp_ms=TIMESTAMPS[timestamp % len(TIMESTAMPS)], key=KEYS[key % len(KEYS)],
        value=None if mode % NO_VALUE == 1 else data[HEAD:], headers=HEADERS[header % len(HEADERS)],
    )  # fmt: skip


def judge(data: bytes) -> None:
    """Reading gives a change that can be stored, or a reason that can be stored; whatever it raises is the fuzzer's catch."""
    record = record_of(data)
    found = decode(record, mode=MODES[record.offset // NO_VALUE % 2], epoch=0)
    counts["change" if isinstance(found, Change) else found.reason] += 1
    if counts.total() % SAY_EVERY == 0:
        print(json.dumps(counts), flush=True)  # noqa: T201 - nothing of Python runs when libFuzzer ends
    if isinstance(found, Change):
        texts = [found.document_id, found.title or "", found.text, json.dumps(found.metadata, ensure_ascii=False)]
    else:
        assert isinstance(found, Rejection), found
        assert found.detail, found
        texts = [found.detail, found.document_id or ""]
    for text in texts:
        text.encode()
        assert "\0" not in text, text


def mutated(data: bytes, most: int, seed: int) -> bytes:
    """Another input: JSON of other types in some fields, or bytes as libFuzzer changes them."""
    choose = random.Random(seed)
    head, shaped = data[:HEAD].ljust(HEAD, b"\0"), b""
    if choose.random() < SHAPED:
        with suppress(RecursionError):
            shaped = head + misshapen(data[HEAD:], choose)
    return shaped if 0 < len(shaped) <= most else bytes(atheris.Mutate(data, most))


def misshapen(value: bytes, choose: random.Random) -> bytes:
    """A value, or a good event where it is none, of which some fields have any types."""
    try:
        event = json.loads(value)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        event = {"id": "a", "text": "T", "version": 3, "time": "2026-11-23T10:00:00Z", "metadata": {"n": [1]}}
    event |= {field: choose.choice(VALUES) for field in choose.sample(FIELDS, choose.randrange(4))}
    return json.dumps(event, ensure_ascii=choose.random() < 0.5).encode("utf-8", "surrogatepass")


def main() -> None:
    """Never returns."""
    corpus, *options = sys.argv[1:]
    # not libFuzzer's own limit: it goes by a peak that a process inherits from the one that started it
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    folder = Path(corpus)
    for number, seed in enumerate(SEEDS):
        (folder / f"seed-{number}").write_bytes(bytes(HEAD) + seed)
    words = folder.with_name("words")
    words.write_text("".join(f'"{word}"\n' for word in map(_quoted, [*WORDS, *FIELDS[:-1]])))
    settings = [f"-dict={words}", f"-max_len={LONGEST}", f"-artifact_prefix={folder.parent}/"]
    atheris.Setup([sys.argv[0], corpus, *settings, *options], judge, custom_mutator=mutated)
    atheris.Fuzz()


def _quoted(word: str) -> str:
    """As libFuzzer's dictionaries write it."""
    return "".join(f"\\x{byte:02x}" for byte in word.encode("latin-1"))


if __name__ == "__main__":
    main()
