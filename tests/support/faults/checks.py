"""The invariants I1 to I12, each a function that raises an AssertionError which says what is wrong.

I1 and I5 are one: an index that equals the fold has lost no update. I2, I4 and I10 are watched by the reader all the time.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from livedex.core.record import Place, Record
from support.faults import oracle
from support.faults.audit import DocumentChange, ProgressChange
from support.faults.oracle import Folded, Parsed
from support.faults.poison import MARK
from support.faults.reader import Reader
from support.faults.snapshot import Snapshot

SHOWN = 5  # contradictions in one message
P99 = 2.0  # seconds: the deadline of a search


def _none(name: str, wrong: Iterable[str]) -> None:
    found = list(wrong)
    assert not found, f"{name}: {len(found)} contradictions, the first: " + "; ".join(found[:SHOWN])


def fold_equality(snapshot: Snapshot, records: Sequence[Record], *, numbered_by: str) -> None:
    """I1 I5: the snapshot is the fold of the log up to the snapshot's own progress, tombstones, texts and vectors included."""
    parsed = oracle.good(records, numbered_by=numbered_by, upto=snapshot.progress, without=snapshot.left_out)
    expected = oracle.fold(parsed)
    wrong = list(snapshot.faults)
    for name in sorted(expected.keys() | snapshot.documents.keys()):
        wrong += _differences(name, expected.get(name), snapshot.documents.get(name), visible=name in snapshot.visible)
    _none("I5 the index is not the fold of the log", wrong)


def _differences(name: str, expected: Folded | None, found: Folded | None, *, visible: bool) -> list[str]:
    if expected is None or found is None:
        return [f"{name} is {'missing' if found is None else 'there without an event'}"]
    wrong = []
    if visible is not (expected.text is not None):
        wrong.append(f"{name} is {'visible' if visible else 'not visible'}")
    for part in ("content_version", "metadata_version", "text", "title", "metadata"):
        mine, theirs = getattr(expected, part), getattr(found, part)
        if mine != theirs:
            wrong.append(f"{name}.{part} is {str(theirs)[:80]!r}, the log says {str(mine)[:80]!r}")
    return wrong


def no_resurrection(reader: Reader, records: list[Record], *, numbered_by: str) -> None:
    """I2: no search showed a document after its delete was visible, nor an older writing than had been visible."""
    _none("I2 a search went back", reader.check_sightings(records, numbered_by=numbered_by))


def versions_rise(changes: Iterable[DocumentChange]) -> None:
    """I3: every change of a document raises the version of a part, lowers none, and touches no other part."""
    wrong, last = [], dict[str, DocumentChange]()
    for change in changes:
        before = last.get(change.document_id)
        last[change.document_id] = change
        if change.op == "DELETE":
            wrong.append(f"the row of {change.document_id} was deleted, and its versions with it")
        elif before is not None:
            wrong += _stale(before, change)
    _none("I3 a stale event was written", wrong)


def _stale(before: DocumentChange, change: DocumentChange) -> list[str]:
    name, wrong, risen = change.document_id, [], 0
    for part in ("content_version", "metadata_version"):
        old, new = getattr(before, part) or (), getattr(change, part) or ()
        risen += new > old
        if new < old:
            wrong.append(f"{part} of {name} fell from {old} to {new}")
    if not risen:
        wrong.append(f"{name} was written again at {change.content_version}, {change.metadata_version}")
    if before.content_version == change.content_version and (before.deleted, before.title) != (change.deleted, change.title):
        wrong.append(f"the content of {name} changed without its version")
    if before.metadata_version == change.metadata_version and before.metadata != change.metadata:
        wrong.append(f"the metadata of {name} changed without its version")
    return wrong


def atomic_documents(reader: Reader) -> None:
    """I4, and what else the reader saw with its own eyes (I2, I10)."""
    _none("I4 I2 I10 a reader saw what it must not", reader.violations)


def progress_is_safe(
    steps: Sequence[ProgressChange], changes: Iterable[DocumentChange], records: Iterable[Record], *, numbered_by: str,
    without: frozenset[tuple[str, int, int]] = frozenset(),
) -> None:  # fmt: skip
    """I6: progress never falls, and once it is past an event the document has that event's version or a newer one."""
    per_partition: dict[tuple[str, int], list[ProgressChange]] = defaultdict(list)
    for step in steps:
        per_partition[step.topic, step.partition].append(step)
    parsed: dict[tuple[str, int], list[Parsed]] = defaultdict(list)
    for one in oracle.good(records, numbered_by=numbered_by, without=without):
        parsed[one.record.topic, one.record.partition].append(one)
    history: dict[str, list[DocumentChange]] = defaultdict(list)
    for change in changes:
        history[change.document_id].append(change)
    wrong = []
    for partition, own in per_partition.items():
        wrong += _passed(own, parsed[partition], history)
    _none("I6 progress is not safe", wrong)


def _passed(
    steps: Sequence[ProgressChange], events: Sequence[Parsed], history: Mapping[str, Sequence[DocumentChange]]
) -> list[str]:
    wrong, place = [], 0
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        if after is not None and after.next_offset < step.next_offset:
            wrong.append(f"{step.topic}[{step.partition}] fell from {step.next_offset} to {after.next_offset}")
        while place < len(events) and events[place].record.offset < step.next_offset:
            # changes that are not committed yet may count too: the check can miss, and never cries wolf
            wrong += _unapplied(events[place], history, after.seq if after is not None else None)
            place += 1
    return wrong


def _unapplied(one: Parsed, history: Mapping[str, Sequence[DocumentChange]], until: int | None) -> list[str]:
    rows = [change for change in history.get(one.name, ()) if until is None or change.seq < until]
    newest = rows[-1] if rows else None
    parts = ["metadata_version"] if one.op == "metadata" else ["metadata_version", "content_version"]
    return [
        f"progress passed {one.record.place}, and {part} of {one.name} is {newest and getattr(newest, part)}"
        for part in parts
        if newest is None or (getattr(newest, part) or ()) < one.version
    ]


def single_writer(steps: Iterable[ProgressChange]) -> None:
    """I7: the owner epoch never falls, an epoch has one owner, and nobody else writes in it."""
    wrong, last = [], dict[tuple[str, int], ProgressChange]()
    for step in steps:
        before = last.get((step.topic, step.partition), step)
        last[step.topic, step.partition] = step
        if step.owner_epoch < before.owner_epoch:
            wrong.append(f"{step.topic}[{step.partition}] fell from epoch {before.owner_epoch} to {step.owner_epoch}")
        elif step.owner_epoch == before.owner_epoch and step.owner != before.owner:
            wrong.append(f"epoch {step.owner_epoch} of {step.topic}[{step.partition}] had {before.owner} and {step.owner}")
        if step.writer not in ("", step.owner):  # a scenario that writes by itself does not name its connections
            wrong.append(f"{step.writer} wrote {step.topic}[{step.partition}] in epoch {step.owner_epoch} of {step.owner}")
    _none("I7 a partition had two writers", wrong)


def every_offset_once(snapshot: Snapshot, records: Iterable[Record], *, may_fail: frozenset[Place] = frozenset()) -> None:
    """I8: poison has one dead letter with its exact bytes, no other record has one. The key of the table allows no second."""
    letters, wrong = dict(snapshot.dead_letters), []
    for record in records:
        if record.offset >= snapshot.progress.get((record.topic, record.partition), 0):
            continue
        letter = letters.pop((record.topic, record.partition, record.offset), None)
        if not oracle.is_poison(record) and record.place not in may_fail:
            wrong += [f"{record.place} is good and became a dead letter: {letter[3]}"] if letter else []
        elif letter is None:
            wrong.append(f"{record.place} is poison and has no dead letter")
        else:
            wrong += _other_bytes(record, *letter[:4])
            wrong += [f"the dead letter of {record.place} was written {letter[5]} times"] if letter[5] != 1 else []
    wrong += [f"there is a dead letter for {place}, where progress has not been" for place in letters]
    _none("I8 not every offset is accounted for once", wrong)


def _other_bytes(record: Record, key: object, value: object, headers: Sequence[object], reason: str) -> list[str]:
    sent = [part for name, content in record.headers for part in (name.encode(), content)]
    wrong = []
    if (key, value, list(headers)) != (record.key, record.value, sent):
        wrong.append(f"the dead letter of {record.place} has other bytes than the record")
    meant = next((content for name, content in record.headers if name == MARK), None)
    if meant is not None and meant.decode() != reason:
        wrong.append(f"the dead letter of {record.place} says {reason}, it is {meant.decode()}")
    return wrong


def counted_once(counted: float, records: Sequence[Record]) -> None:
    """I8: where no worker was killed, their counters say of each record exactly once what became of it."""
    assert counted == len(records), f"I8 the workers counted {counted:g} events, the log has {len(records)}"


def acknowledged_is_there(acknowledged: Iterable[Place], records: Iterable[Record]) -> None:
    """The broker lost nothing that it acknowledged: else the harness would prove nothing."""
    missing = set(acknowledged) - {record.place for record in records}
    _none("acknowledged records are not in the log", map(str, sorted(missing)))


def searches_were_answered(reader: Reader) -> None:
    """I10: there were searches, and hardly one took long; which of them failed without excuse, the reader has said."""
    assert reader.searches, "I10 the reader has searched nothing"
    assert reader.p99 < P99, f"I10 one search in a hundred took {reader.p99:.2f} s or longer"
