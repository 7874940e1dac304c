"""Searches of 100,000 chunks of real text with real vectors: over HTTP, by text in SQL, many at once, with filters, beside a
backfill, and as an application does it that does everything by itself.
"""

import statistics
from collections.abc import Iterator

from rich.console import Console

from bench.asking import FILTERED, Desk, condition, desk, shuffled
from bench.child import Child
from bench.corpus import NAME
from bench.figures import Figure, quantile, timed
from bench.filling import SHARES
from bench.judging import fused, ndcg
from bench.scene import Scene
from support.waiting import until

PART = "ask"
SEARCHES = 300
SESSIONS, EACH = 30, 20
FILTERS = 100  # searches with each


def measure(scene: Scene) -> Iterator[Figure]:
    """Everything idle first, the backfill last."""
    number = scene.rounds(SEARCHES, 20)
    with desk(scene, Console().print) as asking:
        asking.over_http(asking.new(20), "hybrid")  # warms both up
        yield from _http(asking, number)
        yield from _in_sql(asking, number)
        yield from _at_once(asking, scene.rounds(EACH, 3))
        yield from _filters(asking, scene.rounds(FILTERS, 10))
        yield _quality(asking)
        yield from _backfill(asking, scene, number)


def _http(asking: Desk, number: int) -> Iterator[Figure]:
    vector, hybrid, plain = [], [], []
    with Child("bench.plain") as child:
        child.ask(url=asking.workers.database_url, questions=asking.new(5))
        for _ in range(3):  # in turns
            vector += asking.over_http(asking.new(number // 3), "vector")
            hybrid += asking.over_http(asking.new(number // 3), "hybrid")
            plain += child.ask(url=asking.workers.database_url, questions=asking.new(number // 3))["seconds"]
    of = f"{len(vector)} questions that nobody asked before, to {len(asking.vectors)} chunks of {NAME}"
    yield _p50("HTTP, vector, p50", vector, 6, of)
    yield _recall(asking, number)
    yield _p50("HTTP, hybrid, p50", hybrid, 12, of)
    yield _p95("HTTP, hybrid, p95", hybrid, 30, of)
    yield Figure(
        part=PART, name="the plain way, against HTTP, vector", value=_ms(plain) / _ms(vector), unit="x",
        detail=f"p50 {_ms(plain):.1f} ms: sentence-transformers, a new connection, ORDER BY in the application; in turns",
    )  # fmt: skip


def _recall(asking: Desk, number: int) -> Figure:
    questions, vectors = asking.judged
    found, wanted = 0, 0
    with asking.session() as connection:
        for question, vector in list(zip(questions, vectors, strict=True))[:number]:
            exact = asking.nearest(vector)
            found += len(exact & {row[0] for row in connection.execute(FILTERED, (question, condition(None))).fetchall()})
            wanted += len(exact)
    return Figure(part=PART, name="recall@10 against exact", value=found / wanted, aim=0.97, detail=f"{wanted // 10} questions")


def _in_sql(asking: Desk, number: int) -> Iterator[Figure]:
    questions = asking.new(number)
    yield _p50("SQL by text, vector, new texts, p50", asking.in_sql(questions), 15, "by way of the mailbox; a warm session")
    yield _p50("SQL by text, vector, cached texts, p50", asking.in_sql(questions), 5, "the same texts again")
    yield _p50("SQL by text, hybrid, cached texts, p50", asking.in_sql(questions, "hybrid"), None, "the same texts again")


def _at_once(asking: Desk, each: int) -> Iterator[Figure]:
    questions = [asking.new(each) for _ in range(SESSIONS)]
    warm = asking.new(1)[0]
    first = asking.first_of_session(warm, SESSIONS)[1:]  # the first of all is a new text
    new = asking.at_once(SESSIONS, questions, warm)
    flat = [question for own in questions for question in own]
    cached = asking.at_once(SESSIONS, [shuffled(flat, seed)[:each] for seed in range(SESSIONS)], warm)
    yield _p50("SQL by text, vector, first search of a new session, cached text, p50", first, None, f"{len(first)} sessions")
    of = f"vector; {SESSIONS} sessions that searched before, {each} searches each, without a pause"
    yield _p95(f"SQL by text, {SESSIONS} sessions at once, cached texts, p95", cached.seconds, 60, of)
    yield _p95(f"SQL by text, {SESSIONS} sessions at once, new texts, p95", new.seconds, 400, of)
    yield Figure(part=PART, name="errors of these", value=new.errors + cached.errors, aim=0, better="less", detail=of)


def _filters(asking: Desk, number: int) -> Iterator[Figure]:
    questions, vectors = asking.judged
    least, most_short = 1.0, 0
    for mark, every in SHARES.items():
        seconds, rows, found, wanted = [], [], 0, 0
        with asking.session() as connection:
            for question, vector in list(zip(questions, vectors, strict=True))[:number]:
                names: set[str] = set()
                seconds.append(timed(lambda: names.update(_filtered(connection, question, mark))))  # noqa: B023
                exact = asking.nearest(vector, mark)
                rows.append(len(names) - len(exact))
                found, wanted = found + len(exact & names), wanted + len(exact)
        short = sum(missing < 0 for missing in rows)
        least, most_short = min(least, found / wanted), max(most_short, short)
        of = f"{number} searches in SQL; recall {found / wanted:.3f}, {short} with fewer rows than match"
        yield _p95(f"filter that matches {100 / every:g} %, p95", seconds, 40, of)
    of = f"of {', '.join(f'{100 / every:g} %' for every in SHARES.values())}"
    yield Figure(part=PART, name="recall@10 under a filter, the smallest", value=least, aim=0.95, detail=of)
    yield Figure(
        part=PART, name="searches under a filter with fewer rows than match, at most", value=most_short, aim=0, better="less",
        detail=f"{of}, {number} searches each",
    )  # fmt: skip


def _filtered(connection: object, question: str, mark: str) -> list[str]:
    return [row[0] for row in connection.execute(FILTERED, (question, condition(mark))).fetchall()]  # type: ignore[attr-defined]


def _quality(asking: Desk) -> Figure:
    with asking.session() as connection:
        return fused(PART, ndcg(connection, *asking.judged), len(asking.corpus.questions))


def _backfill(asking: Desk, scene: Scene, number: int) -> Iterator[Figure]:
    idle = asking.over_http(asking.new(number), "hybrid")
    before = _rows(asking)
    worker = asking.workers.start("index", asking.config, LIVEDEX_EMBEDDER="auto")
    for event in scene.events.all:
        scene.log.post(asking.topic, event)
    scene.log.flush()
    until(lambda: _rows(asking) > before, timeout=120, what="the backfill to be under way")
    busy = asking.over_http(asking.new(number), "hybrid")
    written = _rows(asking) - before
    assert worker.stop(timeout=30) == 0
    slow, fast = quantile(busy, 95) * 1000, quantile(idle, 95) * 1000
    yield Figure(
        part=PART, name="search p95 under a backfill at full speed, against idle", value=slow / fast, unit="x", aim=3,
        better="less", detail=f"HTTP, hybrid: p95 {slow:.1f} against {fast:.1f} ms; {written} vectors written meanwhile",
    )  # fmt: skip


def _rows(asking: Desk) -> int:
    return int(asking.workers.rows("select count(*) from livedex.embedding_1")[0][0])


def _ms(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1000


def _p50(name: str, seconds: list[float], aim: float | None, of: str) -> Figure:
    detail = f"p95 {quantile(seconds, 95) * 1000:.1f} ms; {of}"
    return Figure(part=PART, name=name, value=_ms(seconds), unit="ms", aim=aim, better="less", detail=detail)


def _p95(name: str, seconds: list[float], aim: float, of: str) -> Figure:
    detail = f"p50 {_ms(seconds):.1f} ms; {of}"
    return Figure(part=PART, name=name, value=quantile(seconds, 95) * 1000, unit="ms", aim=aim, better="less", detail=detail)
