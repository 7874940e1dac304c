"""Takes one protection away from a worker. For each there is a scenario that fails without it: that is what proves both.

Each removal first makes sure that what it removes is where it was: a removal that removes nothing would prove nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from livedex import database


def _rewrite(name: str, changes: Mapping[str, str]) -> None:
    """Change a statement of schema/queries/index.sql."""
    statements: dict[str, Any] = database.named_queries("index")  # cached: what is put in here is what everybody gets
    text = statements[name]
    for old, new in changes.items():
        if old not in text:
            raise LookupError(f"the statement {name} has no {old!r} any more: say here how the protection is written now")
        text = text.replace(old, new)
    statements[name] = text


def _patch(owner: Any, name: str, replacement: Any) -> Any:
    """Replace an attribute that must be there; the old one."""
    old = getattr(owner, name)
    setattr(owner, name, replacement)
    return old


def version_fence() -> None:
    """Whatever comes later is written, in the plan and in the database."""
    from livedex.core import plan

    _patch(plan, "fence", lambda state, _content, _metadata: state)
    for part in ("content_version", "metadata_version"):
        newer, newest = f"excluded.{part} > coalesce(d.{part}, '{{{{}}}}')", f"greatest(d.{part}, excluded.{part})"
        latest = f"coalesce(excluded.{part}, d.{part})"
        _rewrite("apply_documents", {newer: f"excluded.{part} is not null", newest: latest})


def progress_cas() -> None:
    """A batch moves the progress from wherever it stands."""
    _rewrite("move_progress", {"and next_offset = %(expected_offset)s": ""})


def owner_epoch() -> None:
    """A worker that lost the partition may go on writing."""
    _rewrite("move_progress", {"and owner_epoch = %(owner_epoch)s": ""})


def seek() -> None:
    """A claimed partition is read on from where the client's memory, or the group's committed offset, is."""
    from livedex.index import source

    def begin(self: Any, partition: Any, _offset: int) -> None:
        self._consumer.resume(partition)
        self._reading.add(partition)

    def release(self: Any, partition: Any) -> None:
        self._reading.discard(partition)
        if partition in self._consumer.assignment():
            self._consumer.pause(partition)

    def assigned(self: Any, partitions: Iterable[Any]) -> None:
        partitions = frozenset(partitions)
        for partition in partitions:
            self._consumer.pause(partition)
        self._events.append((True, partitions))

    _patch(source.KafkaSource, "begin", begin)
    _patch(source.KafkaSource, "release", release)
    _patch(source.KafkaSource, "on_partitions_assigned", assigned)
    source.SETTINGS["auto_offset_reset"] = "earliest"


def tombstones() -> None:
    """A deleted document's row goes, and with it the version that would refuse a late event."""
    from livedex.index import store

    def forgetting(connection: Any, *arguments: Any, **named: Any) -> Any:
        results = kept(connection, *arguments, **named)
        connection.execute("delete from livedex.document where deleted and content_version is not null")
        return results

    kept = _patch(store, "apply_documents", forgetting)


def replanning() -> None:
    """A chunk that was collected before it was mapped is the fault of the document that wants it."""
    from livedex.index import applying, refusals

    _patch(applying, "ConflictError", refusals.RefusedError)


def model_check() -> None:
    """Any model's vectors go into any generation's table."""
    from livedex import catalogue

    for check in ("check", "check_probe"):
        _patch(catalogue.Generation, check, lambda _self, _encoder: None)


def bisection() -> None:
    """When a batch fails, all of its documents are at fault."""
    from livedex.index import stages

    def all_of_them(items: Sequence[Any], failure: Callable[[Sequence[Any]], Any]) -> Iterator[tuple[Any, Any]]:
        found = failure(items)
        yield from ((item, found) for item in (items if found is not None else ()))

    _patch(stages, "isolate", all_of_them)


def retry() -> None:
    """A partition on which something failed once is left."""
    from livedex.index import holdings

    def give_up(self: Any, partition: Any, error: Exception) -> None:
        self.leave(partition, f"no second try: {error}")

    _patch(holdings.Holdings, "reclaim", give_up)


def polling() -> None:
    """The loop waits for a batch to be done before it polls again."""
    from livedex.index import worker

    def balance(self: Any) -> None:
        while not (self._in_flight.empty or self._stop.wait(0.01)):
            self._answer()
        kept(self)

    kept = _patch(worker.IndexWorker, "_balance", balance)


REMOVALS: dict[str, Callable[[], None]] = {
    "version-fence": version_fence,
    "progress-cas": progress_cas,
    "owner-epoch": owner_epoch,
    "seek": seek,
    "tombstones": tombstones,
    "replanning": replanning,
    "model-check": model_check,
    "bisection": bisection,
    "retry": retry,
    "polling": polling,
}
