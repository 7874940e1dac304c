"""The column pending_reason of livedex.documents: the latest update of a document is a dead letter, and this is why."""

from collections.abc import Callable
from typing import Any

import pytest

from support.encoders import MARK
from support.letters import Desk

OpenDesk = Callable[..., Desk]
NO_JSON = "no JSON"


def upsert(name: str, version: int, **fields: Any) -> dict[str, Any]:
    """A good event, unless a field says otherwise."""
    return {"id": name, "version": version, "text": f"Version {version}.", **fields}


def send(desk: Desk, *events: tuple[str, dict[str, Any] | str]) -> None:
    """Send events of these documents, and wait until they are applied."""
    for name, event in events:
        desk.send(event.encode() if isinstance(event, str) else {"id": name, **event}, key=name)
    desk.caught_up()


def pending(desk: Desk) -> dict[str, tuple[Any, ...]]:
    """Text and pending reason of each document."""
    rows = desk.workers.rows(
        "select document_id, c.text, d.pending_reason"
        "  from livedex.documents d join livedex.chunks c using (collection, document_id)"
    )
    return {row[0]: row[1:] for row in rows}


BROKEN: dict[str, list[tuple[dict[str, Any] | str, str]]] = {
    "log": [
        ({"version": 1, "text": 7}, "schema"),
        ({"version": 1, "text": MARK}, "embedding-failed"),
        (NO_JSON, "invalid-json"),
    ],
    "source": [
        ({"version": 6, "text": 7}, "schema"),
        ({"version": 6, "text": MARK}, "embedding-failed"),
        ({"text": "No version."}, "missing-version"),
        (NO_JSON, "invalid-json"),
    ],
}


@pytest.mark.parametrize("versions", BROKEN)
def test_it_is_there_until_a_newer_event_or_a_discard(open_desk: OpenDesk, versions: str) -> None:
    """Whatever is broken in its latest event: the document stays as it was and says why it is behind, until a newer good event
    comes, or the letter is given up.
    """
    desk = open_desk(versions=versions)
    names = {f"{fate} {number}": case for number, case in enumerate(BROKEN[versions]) for fate in ("renewed", "given up")}
    with desk.workers.in_thread(desk.worker()):
        send(desk, *((name, upsert(name, 5)) for name in names))
        send(desk, *((name, event) for name, (event, _) in names.items()))
        assert pending(desk) == {name: ("Version 5.", reason) for name, (_, reason) in names.items()}
        send(desk, *((name, upsert(name, 7)) for name in names if name.startswith("renewed")))
    for name in names:
        if name.startswith("given up"):
            desk.answers("discard", "--document", name)
    assert pending(desk) == {name: ("Version 7." if name.startswith("renewed") else "Version 5.", None) for name in names}
    assert {state for (state,) in desk.letters("state")} == {"open", "discarded"}


@pytest.mark.parametrize("versions", ["log", "source"])
def test_a_replay_ends_it(open_desk: OpenDesk, versions: str) -> None:
    """A letter whose replay failed is still pending, with the reason of the last try; one that passed is not."""
    desk = open_desk(versions=versions)
    desk.take(upsert("a", 5), upsert("a", 6, text=f"{MARK}."))
    with desk.workers.connect() as connection:
        connection.execute("alter table livedex.document add constraint nothing check (content_version[3] = 0) not valid")
        desk.answers("replay", "--all", code=1)
        assert pending(desk) == {"a": ("Version 5.", "storing-failed")}
        connection.execute("alter table livedex.document drop constraint nothing")
    desk.answers("replay", "--all")
    assert pending(desk) == {"a": (f"{MARK}.", None)}


def test_a_late_event_of_an_older_version_is_not_pending(open_desk: OpenDesk) -> None:
    """What the document would not have taken anyway says nothing of it."""
    desk = open_desk(versions="source")
    desk.take(upsert("a", 5), upsert("a", 3, text=7), upsert("a", 4, text=MARK))
    assert pending(desk) == {"a": ("Version 5.", None)}


def test_documents_of_other_collections_are_not_pending(open_desk: OpenDesk) -> None:
    """Of two documents with the same id, only that of the letter's collection is behind."""
    desk = open_desk()
    other = desk.log.topic()
    desk.config.write_text(f'{desk.config.read_text()}[collections.other]\n[sources."{other}"]\ncollection = "other"\n')
    desk.workers.apply(desk.config)
    with desk.workers.in_thread(desk.worker()):
        desk.send(upsert("a", 1), upsert("a", 2, text=7))
        places = [desk.log.send(other, upsert("a", number)) for number in range(3)]
        desk.caught_up()
        desk.workers.caught_up(other, {0: places[-1].offset + 1})
    found = desk.workers.rows("select collection, pending_reason from livedex.documents order by 1")
    assert found == [("default", "schema"), ("other", None)]
