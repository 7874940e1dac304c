"""Events that come again, late, or faster than they can be indexed: the highest version wins, and stays."""

import json
import random
from collections.abc import Callable, Sequence

import pytest

from support.faults.arena import Arena
from support.faults.script import Event, Mix
from support.faults.texts import write

NAMES = [f"doc/{number}" for number in range(20)]
UPDATES = 10_000  # of one document
WINDOW = 40  # events within which the order is lost


def thrice_in_disorder(events: Sequence[Event], choose: random.Random) -> list[Event]:
    """Each event three times, moved by up to a window."""
    places = [(number + choose.uniform(0, WINDOW), number, event) for number, event in enumerate(events) for _ in range(3)]
    return [event for _, _, event in sorted(places, key=lambda place: place[:2])]


@pytest.mark.scenario(22, seconds=7)
def test_22_duplicates_and_disorder_over_two_topics(open_arena: Callable[..., Arena]) -> None:
    """Events that come three times, in disorder, from two producers over two topics, are folded as if each had come once."""
    arena = open_arena(topics=2, partitions=2, versions="source", collects=True)
    events = thrice_in_disorder(list(arena.script.events(700)), arena.choose)
    arena.load(events, shuffled=True, rate=500)
    arena.worker(wait=False)
    arena.worker(wait=False)
    arena.verify(arena.settle())


def numbered(name: str, version: int, op: str, choose: random.Random) -> Event:
    """An event whose text says its version."""
    title, text = write(name, version, choose)
    content = {"title": title, "text": text} if op == "upsert" else {}
    metadata = {} if op == "delete" else {"metadata": {"version": version}}
    value = json.dumps({"op": op, "id": name, "version": version, **content, **metadata}).encode()
    return Event(name=name, kind=op, key=name.encode(), value=value, version=version)


@pytest.mark.scenario(23, seconds=6)
def test_23_late_events_after_a_delete(open_arena: Callable[..., Arena]) -> None:
    """After a delete neither a late update, nor a late or newer change of metadata, nor a replay of the whole past brings the
    document back; a newer update does.
    """
    arena = open_arena(versions="source", collects=True)
    arena.worker()

    def send(*kinds: tuple[int, str], names: Sequence[str] = tuple(NAMES)) -> list[str]:
        arena.load([numbered(name, version, op, arena.choose) for version, op in kinds for name in names])
        arena.settle()
        seen = arena.reader.snapshots + 2  # one that began after all of it was applied
        arena.wait_for(lambda: arena.reader.snapshots >= seen, what="the reader to look")
        return sorted(row[0] for row in arena.rows("select document_id from livedex.documents"))

    assert send((1, "upsert"), (2, "upsert")) == sorted(NAMES)
    assert send((5, "delete")) == []
    assert send((4, "upsert"), (3, "metadata")) == [], "late events"
    assert send((6, "metadata")) == [], "newer metadata"
    assert send((1, "upsert"), (2, "upsert"), (5, "delete"), (4, "upsert"), (5, "delete")) == [], "a replay"
    assert send((7, "upsert"), names=NAMES[:5]) == sorted(NAMES[:5])
    arena.verify(arena.records())


@pytest.mark.scenario(34, seconds=8)
def test_34_rapid_updates_of_one_document(open_arena: Callable[..., Arena]) -> None:
    """Of ten thousand updates of one document, sent as fast as they can be, at least nine in ten are never embedded."""
    arena = open_arena(partitions=1, documents=1, mix=Mix(delete=0, metadata=0, replay=0, late=0, poison=0, most_paragraphs=3))
    worker = arena.worker()
    arena.load(UPDATES)
    arena.verify(arena.settle())
    folded = worker.metrics().value("livedex_events_total", outcome="superseded")
    assert folded >= 0.9 * UPDATES, f"only {folded:g} of {UPDATES} updates were folded away before they were embedded"
