"""What is wrong, in words for an operator, the worst first: from what Postgres and Kafka say of sources, collections, workers.

Rows are those of status.py, as plain values.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LATE = 30.0  # seconds by which a partition may be behind before it is told
Row = Mapping[str, Any]


def problems(found: Mapping[str, Any]) -> list[str]:
    """One sentence for each thing that needs somebody. `found["log"]` is why Kafka could not be asked, or None."""
    sentences = [
        *([f"{found['log']}: lag and staleness are unknown"] if found.get("log") else []),
        *_of_sources(found["sources"], found["workers"] or ()),
        *(sentence for row in found["collections"] for sentence in _of_collection(row)),
        *_of_dead_letters(found["dead_letters"] or {}),
    ]
    return list(dict.fromkeys(sentences))


def summary(found: Mapping[str, Any], wrong: Sequence[str]) -> str:
    """One line that says whether anything is wrong."""
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return f"{wrong[0]}{more}"
    behind = sum(row.get("lag") or 0 for row in found["sources"])
    return f"nothing is wrong; {behind} events are on their way" if behind else "all caught up"


def _of_sources(sources: Sequence[Row], workers: Sequence[Row]) -> Iterator[str]:
    alive = {row["worker"] for row in workers if row["connected"]}
    indexing = any(row["kind"] == "index" and row["connected"] for row in workers)
    if not sources:
        yield "no topic is followed: run livedex apply"
    for row in sorted(sources, key=lambda row: -(row.get("staleness_seconds") or 0.0)):
        if row["state"] == "stopped":
            yield f"topic {row['topic']} is stopped: {row['reason'] or 'an operator stopped it'}"
        elif row["partition"] is None:
            yield f"topic {row['topic']} is not read yet: {_start(indexing)}"
        else:
            yield from _of_partition(row, alive, indexing)


def _of_partition(row: Row, alive: set[str], indexing: bool) -> Iterator[str]:
    name = f"topic {row['topic']} partition {row['partition']}"
    owned, behind = row["owner"] in alive, _behind(row)
    if behind and owned:
        yield f"{name} {behind}, and its owner {row['owner']} is connected: see its log, and /readyz of its metrics port"
    elif behind:
        yield f"{name} {behind} and has no owner: {_start(indexing)}"
    elif not owned and not indexing:
        yield f"{name} has no owner: {_start(indexing)}"


def _behind(row: Row) -> str | None:
    """How far a partition is behind, where that is too far."""
    lag, staleness = row.get("lag"), row.get("staleness_seconds")
    if not lag or (staleness is not None and staleness <= LATE):
        return None
    since = f"{_time(staleness)} behind" if staleness is not None else "behind"
    return f"is {since} ({lag} events)"


def _start(indexing: bool) -> str:
    return "the index workers have not taken it over yet" if indexing else "start livedex index"


def _of_collection(row: Row) -> Iterator[str]:
    name, index = row["collection"], row["index"]
    if row["generation"] is None:
        yield f"collection {name} has no active generation: run livedex apply"
    if index is not None and index["state"] == "invalid":
        yield f"the index of {name} is invalid, so that searches compare all vectors: an index worker builds it again"
    if index is not None and index["problem"] is not None:
        yield f"index of {name}: {index['problem']}"
    for other in row["generations"]:
        if other["state"] == "failed":
            yield f"generation {other['generation']} of {name} failed, because of {other['reason']}: livedex generation drop it"


def _of_dead_letters(letters: Mapping[str, int]) -> Iterator[str]:
    total = sum(letters.values())
    if total:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(letters.items()))
        yield f"dead letters are open ({reasons}): livedex dead-letters list"


def _time(seconds: float) -> str:
    """A time in the largest unit of which there are two."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
