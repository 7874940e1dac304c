"""Ten thousand searches while documents are updated and deleted, as `make accept` runs it."""

import itertools
import random
import re
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pgvector import Vector

from livedex.database import connect, prepare
from support.kafka import Log
from support.synthetic import gaussian
from support.waiting import until
from support.workers import Workers

pytestmark = pytest.mark.accept

SEARCHES, CHANGES, DOCUMENTS = 10_000, 2_000, 3_000
THREADS, AT_ONCE = 4, 20
DIMENSION = 16
INDEXED = "select count(*) from livedex.vector_indexes where valid"
SEARCH = """
select document_id, title, chunk, metadata ->> 'revision' as revision, version
  from livedex.search_vector(%s::vector, query => %s, mode => %s, k => 20, per_document => 3, timeout => '30 s')"""


def event(number: int, revision: int) -> dict[str, Any]:
    """A document of three chunks, each of which says its revision, as the title and the metadata do."""
    part = f"Document{number} is written in revision{revision} about rivers and stones. " * 12
    text = "\n\n".join(f"# Part {n} of document{number}, revision{revision}\n\n{part}" for n in range(3))
    return {"id": f"doc/{number}", "title": f"revision{revision}", "text": text, "metadata": {"revision": f"{revision}"}}


class Truth:
    """What every search that begins now has to find. A document's revision only grows; a deleted one stays so."""

    def __init__(self) -> None:
        self.visible: dict[str, int] = {f"doc/{number}": 0 for number in range(DOCUMENTS)}
        self.deleted: frozenset[str] = frozenset()
        self.sent: dict[str, int] = dict(self.visible)
        self.done = threading.Event()

    def wrong(self, rows: list[tuple[Any, ...]], visible: Mapping[str, int], deleted: frozenset[str]) -> list[str]:
        """What no search that began when this was visible may give."""
        found: list[str] = []
        versions: dict[str, int] = {}
        for name, title, chunk, revision, version in rows:
            said = {title, f"revision{revision}", *re.findall(r"revision\d+", chunk)}
            number = int(revision)
            if name in deleted:
                found.append(f"{name} was deleted")
            if len(said) > 1 or versions.setdefault(name, version) != version:
                found.append(f"{name} is mixed: {said}, version {version}")
            if not visible[name] <= number <= self.sent[name]:
                found.append(f"{name} has revision {number}, expected {visible[name]} to {self.sent[name]}")
        return found


def test_searches_beside_changes_see_whole_documents_and_no_deleted_one(workers: Workers, log: Log) -> None:
    """No search fails, finds a document after its deletion was visible, an older revision than was visible, or a mixed one."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    topic = log.topic(3)
    config = workers.config(topic, model=f"hash-{DIMENSION}", context="none")
    workers.apply(config)
    worker = workers.start("index", config)
    truth = Truth()
    ends: Counter[int] = Counter()

    def send(changes: list[tuple[str, dict[str, Any] | None]]) -> None:
        places = [log.post(topic, value or {"op": "delete", "id": name}) for name, value in changes]
        log.flush()
        for place in places:
            found = place()
            ends[found.partition] = max(ends[found.partition], found.offset + 1)
        workers.caught_up(topic, ends)

    send([(f"doc/{number}", event(number, 0)) for number in range(DOCUMENTS)])
    until(lambda: workers.rows(INDEXED) == [(1,)], timeout=120, what="the vector index")

    def change() -> None:
        choose = random.Random(seed)
        left = [f"doc/{number}" for number in range(DOCUMENTS)]
        for _ in range(CHANGES // AT_ONCE):
            choose.shuffle(left)
            gone, changed = left[: AT_ONCE // 2], left[AT_ONCE // 2 : AT_ONCE]
            del left[: AT_ONCE // 2]
            truth.sent = truth.sent | {name: truth.sent[name] + 1 for name in changed}
            news = [(name, event(int(name[4:]), truth.sent[name])) for name in changed]
            send([*news, *((name, None) for name in gone)])
            truth.deleted |= frozenset(gone)
            truth.visible = truth.visible | {name: truth.sent[name] for name in changed}
        truth.done.set()

    counter = itertools.count(1)

    def search(number: int) -> list[str]:
        choose = random.Random(seed + number)
        vectors = gaussian((seed + number) % 2**32, 500, DIMENSION)
        found: list[str] = []
        with connect(workers.database_url) as connection:
            prepare(connection)
            while next(counter) <= SEARCHES or not truth.done.is_set():
                visible, deleted = truth.visible, truth.deleted
                query = f"revision{choose.randrange(3)} rivers document{choose.randrange(DOCUMENTS)}"
                mode = choose.choice(["vector", "hybrid", "text"])
                rows = connection.execute(SEARCH, (Vector(choose.choice(vectors)), query, mode)).fetchall()
                found += truth.wrong(rows, visible, deleted)
                if len(rows) != 20:
                    found.append(f"{len(rows)} rows in mode {mode}, expected 20")
        return found

    with ThreadPoolExecutor(THREADS + 1) as pool:
        changing = pool.submit(change)
        searching = [pool.submit(search, number) for number in range(THREADS)]
        changing.result()
        wrong = [each for done in searching for each in done.result()]
    assert wrong == []
    assert next(counter) > SEARCHES
    assert len(truth.deleted) == CHANGES // 2
    assert worker.stop() == 0
