"""What the producers send: events made from a seed alone, so that the same seed sends the same bytes again."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from support.faults.poison import MARK, poisons
from support.faults.texts import write

_LATEST_OPEN = 20  # late events that are held back at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One record to be sent."""

    name: str  # of the document
    kind: str  # upsert, delete, metadata, replay, late, poison
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    version: int | None = None  # in source mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """How often each kind comes; the rest are upserts."""

    delete: float = 0.08
    metadata: float = 0.12
    replay: float = 0.08  # the very bytes of an earlier event again
    late: float = 0.08  # held back until newer versions were sent; in source mode only
    poison: float = 0.03
    most_paragraphs: int = 12


@dataclass(slots=True, kw_only=True)
class Script:
    """Makes events of a number of documents; serials and versions go on from one call to the next."""

    seed: int
    numbered_by: str  # log, source
    documents: int = 30
    mix: Mix = field(default_factory=Mix)
    prefix: str = "doc"
    _choose: random.Random = field(init=False)
    _serial: int = 0
    _versions: dict[str, int] = field(default_factory=dict)
    _sent: list[Event] = field(default_factory=list)
    _late: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._choose = random.Random(self.seed)

    def events(self, count: int) -> Iterator[Event]:
        """So many events; none stays held back at the end."""
        for number in range(count):
            left = count - number
            due = self._late and (left <= len(self._late) or self._choose.random() < self.mix.late)
            yield self._late.pop(self._choose.randrange(len(self._late))) if due else self._next(left)

    def _next(self, left: int) -> Event:
        name = f"{self.prefix}/{self._choose.randrange(self.documents)}"
        kinds = ("delete", "metadata", "replay", "poison")
        weights = [getattr(self.mix, kind) for kind in kinds]
        kind = self._choose.choices([*kinds, "upsert"], [*weights, max(0.0, 1 - sum(weights))])[0]
        if kind == "poison":
            return self._poison(name)
        if kind == "replay" and self._sent:
            return self._again()
        event = self._upsert(name) if kind in ("upsert", "replay") else self._small(name, kind)
        self._sent.append(event)
        room = len(self._late) < min(_LATEST_OPEN, left - 1)
        if room and self.numbered_by == "source" and self._choose.random() < self.mix.late:
            self._late.append(Event(name=event.name, kind="late", key=event.key, value=event.value, headers=event.headers,
                                    version=event.version))  # fmt: skip
            return self._next(left)
        return event

    def _again(self) -> Event:
        old = self._choose.choice(self._sent)
        return Event(name=old.name, kind="replay", key=old.key, value=old.value, headers=old.headers, version=old.version)

    def _poison(self, name: str) -> Event:
        sort = self._choose.choice(poisons(name, numbered_by=self.numbered_by))
        headers = ((MARK, sort.reason.encode()), ("origin", b"\x00\xff"))
        return Event(name=name, kind="poison", key=sort.key, value=sort.value, headers=headers)

    def _upsert(self, name: str) -> Event:
        self._serial += 1
        title, text = write(name, self._serial, self._choose, most=self.mix.most_paragraphs)
        return self._event(name, "upsert", title=title, text=text, metadata={"serial": self._serial})

    def _small(self, name: str, kind: str) -> Event:
        if kind == "metadata":
            return self._event(name, kind, metadata={"rank": self._choose.randrange(5)})
        if self._choose.random() < 0.5:
            return self._event(name, kind)
        version = self._number(name)
        headers = () if version is None else (("livedex-version", str(version).encode()),)
        return Event(name=name, kind=kind, key=name.encode(), value=None, headers=headers, version=version)

    def _event(self, name: str, op: str, **fields: Any) -> Event:
        version = self._number(name)
        numbered = {} if version is None else {"version": version}
        value = json.dumps({"op": op, "id": name, **numbered, **fields}).encode()
        return Event(name=name, kind=op, key=name.encode(), value=value, version=version)

    def _number(self, name: str) -> int | None:
        if self.numbered_by != "source":
            return None
        self._versions[name] = self._versions.get(name, 0) + 1
        return self._versions[name]
