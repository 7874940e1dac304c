"""Small changes on an idle system: how soon they are searchable, what they embed, and what they write."""

import random
import time
from collections.abc import Callable, Iterator, Sequence

from bench.events import Event, edited, moved, texts_after
from bench.figures import Figure, quantile
from bench.scene import Live, Scene

PART = "live"
EDITS = 200
WARM = 5  # that are not counted
STAGES = ("plan", "embed", "stage", "apply")
OTHERS = 20  # moves, metadata changes, replays, reverts
PAUSE = 0.01  # between changes, so that each one meets a worker that waits for the next
SOONEST, LOOK_EVERY = 0.02, 0.002  # seconds: who looks all the time takes a third of a core; nothing is searchable sooner
ROWS = "select chunk_key, xmin::text, ctid::text from livedex.embedding_1"


def measure(scene: Scene) -> Iterator[Figure]:
    """One change after another, with the vector index in place."""
    live = scene.live
    live.need_index()
    session = Session(live, texts_after(scene.events.snapshot))
    yield from _freshness(session, scene.rounds(EDITS))
    yield from _embedded(session, scene.rounds(OTHERS))
    yield from _written(session, scene.rounds(OTHERS))


class Session:
    """Changes documents of its own, that nobody else changes."""

    def __init__(self, live: Live, texts: dict[str, str]) -> None:
        self.choose = random.Random(11)
        self.live = live
        self.texts = {f"live/{name}": text for name, text in texts.items() if len(text) > 2000}
        live.index_all([self.upsert(name, text) for name, text in self.texts.items()])

    def upsert(self, name: str, text: str) -> Event:
        """The event, and the text remembered."""
        self.texts[name] = text
        return {"op": "upsert", "id": name, "text": text, "metadata": {"kind": "live"}}

    def name(self) -> str:
        """One of the documents."""
        return self.choose.choice(sorted(self.texts))

    def apply(self, event: Event) -> float:
        """Seconds from before the event is sent until it is searchable."""
        with self.live.workers.connect() as connection:
            statement = "select next_offset > %s from livedex.source_progress where topic = %s and partition = %s"
            started = time.perf_counter()
            place = self.live.log.send(self.live.topic, event)
            time.sleep(SOONEST)
            while connection.execute(statement, (place.offset, place.topic, place.partition)).fetchone() != (True,):
                time.sleep(LOOK_EVERY)
            seconds = time.perf_counter() - started
        self.live.ends[place.partition] = place.offset + 1
        time.sleep(PAUSE)
        return seconds

    def embedded_by(self, events: Sequence[Event]) -> list[int]:
        """Chunks that each of the events embeds."""
        counts = []
        for event in events:
            before = self.live.embedded()
            self.apply(event)
            counts.append(self.live.embedded() - before)
        return counts


def _freshness(session: Session, edits: int) -> Iterator[Figure]:
    names = [session.name() for _ in range(WARM + edits)]
    seconds = []
    for number, name in enumerate(names):
        if number == WARM:
            before = _stages(session.live)
        seconds.append(session.apply(session.upsert(name, edited(session.texts[name], session.choose))))
    after = _stages(session.live)
    spent = ", ".join(f"{stage} {(after[stage] - before[stage]) / edits * 1000:.1f}" for stage in STAGES)
    seconds = seconds[WARM:]
    for percent, aim in ((50, 50.0), (99, 250.0)):
        yield Figure(
            part=PART, name=f"event to searchable, idle, p{percent}", value=quantile(seconds, percent) * 1000, unit="ms",
            aim=aim, better="less", detail=f"{edits} edits of one sentence; from before it is sent; mean ms of {spent}",
        )  # fmt: skip


def _stages(live: Live) -> dict[str, float]:
    """Seconds that batches spent in each stage so far."""
    metrics = live.index.metrics()
    return {stage: metrics.value("livedex_stage_seconds_sum", stage=stage) for stage in STAGES}


def _embedded(session: Session, count: int) -> Iterator[Figure]:
    """The mean over some documents; of each kind, nothing else happens meanwhile."""
    texts = session.texts
    names = [session.name() for _ in range(count)]
    before = {name: texts[name] for name in names}
    kinds: dict[str, tuple[float, Callable[[str], Event]]] = {
        "a paragraph is moved": (3, lambda name: session.upsert(name, moved(texts[name], session.choose))),
        "a metadata change": (0, lambda name: _metadata(session, name)),
        "a replay": (0, lambda name: session.upsert(name, texts[name])),
        "a revert": (0, lambda name: session.upsert(name, before[name])),
    }
    for kind, (aim, make) in kinds.items():
        counts = [found for name in names for found in session.embedded_by([make(name)])]
        yield Figure(
            part=PART, name=f"chunks embedded when {kind}" if " is " in kind else f"chunks embedded on {kind}",
            value=sum(counts) / len(counts), aim=aim, better="less", detail=f"mean of {count}, most {max(counts)}",
        )  # fmt: skip


def _written(session: Session, count: int) -> Iterator[Figure]:
    names = list(dict.fromkeys(session.name() for _ in range(count)))
    before = set(session.live.workers.rows(ROWS))
    for name in names:
        session.apply(_metadata(session, name))
        session.apply(session.upsert(f"{name}/moved", session.texts[name]))
        session.apply({"op": "delete", "id": name})
        del session.texts[name]
    changed = before ^ set(session.live.workers.rows(ROWS))
    yield Figure(
        part=PART, name="rows of the embedding table written by metadata changes and moved documents", value=len(changed),
        aim=0, better="less", detail=f"{len(names)} of each; every row's place and transaction compared",
    )  # fmt: skip


def _metadata(session: Session, name: str) -> Event:
    return {"op": "metadata", "id": name, "metadata": {"kind": "live", "number": session.choose.randrange(10**9)}}
