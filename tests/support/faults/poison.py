"""Records that no index can take, one of each sort. The generator marks them, so that the oracle need not decode anything."""

import json
from dataclasses import dataclass
from typing import Any

MARK = "poison"  # the header of a record that must become a dead letter


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    """A value, and what is wrong with it."""

    reason: str
    value: bytes | None
    key: bytes | None
    source_mode_only: bool = False  # in log mode the record is good


def _event(name: str, **fields: Any) -> bytes:
    return json.dumps({"id": name, "version": 2, "text": "A text.", **fields}).encode()


def poisons(name: str, *, numbered_by: str) -> list[Poison]:
    """All sorts that can name this document."""
    key = name.encode()
    deep = b"[" * 10_000 + b"]" * 10_000
    sorts = [
        Poison(reason="invalid-utf8", value=b'{"version": 2, "text": "\xff"}', key=key),
        Poison(reason="invalid-utf8", value=_event(name), key=b"\xff\xfe"),
        Poison(reason="invalid-json", value=b'{"version": 2, "text": ', key=key),
        Poison(reason="invalid-json", value=b"", key=key),
        Poison(reason="invalid-json", value=b'{"version": 2, "text": "x", "metadata": {"n": NaN}}', key=key),
        Poison(reason="schema", value=b"[]", key=key),
        Poison(reason="schema", value=_event(name, text=7), key=key),
        Poison(reason="schema", value=_event(name, op="replace"), key=key),
        Poison(reason="schema", value=_event(name, time="yesterday"), key=key),
        Poison(reason="missing-id", value=b'{"version": 2, "text": "x"}', key=None),
        Poison(reason="id-mismatch", value=_event(f"{name} not"), key=key),
        Poison(reason="missing-version", value=b'{"text": "x"}', key=key, source_mode_only=True),
        Poison(reason="missing-version", value=None, key=key, source_mode_only=True),
        Poison(reason="nul-character", value=_event(name, text="a\0b"), key=key),
        Poison(reason="nul-character", value=_event(name, metadata={"a": ["\0"]}), key=key),
        Poison(reason="lone-surrogate", value=_event(name, text="\ud800"), key=key),
        Poison(reason="nesting", value=b'{"version": 2, "text": "x", "deep": ' + deep + b"}", key=key),
    ]
    return [sort for sort in sorts if numbered_by == "source" or not sort.source_mode_only]
