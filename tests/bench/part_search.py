"""Searches over HTTP: on an idle system, and while documents are changed."""

import itertools
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from bench.events import edited, texts_after
from bench.figures import Figure, quantile, timed
from bench.scene import Live, Scene

PART = "search"
SEARCHES = 300
CHANGES = 20  # documents a second
SUBJECTS = ("ownership", "a closure", "an enum", "the borrow checker", "a trait object", "pattern matching", "threads")


def measure(scene: Scene) -> Iterator[Figure]:
    """Questions that were not asked before, one after another."""
    live = scene.live
    live.need_index()
    count = scene.rounds(SEARCHES, 20)
    questions = (f"how does {subject} work with example {number}" for number in itertools.count() for subject in SUBJECTS)
    with httpx.Client(base_url=live.serve.address, trust_env=False, timeout=30) as client:
        for mode in ("vector", "text"):
            found = _ask(client, questions, mode, count)
            yield Figure(
                part=PART, name=f"search over HTTP, {mode}, idle, p95", value=quantile(found, 95) * 1000, unit="ms",
                detail=f"p50 {quantile(found, 50) * 1000:.1f} ms, {count} searches",
            )  # fmt: skip
        idle = _ask(client, questions, "hybrid", count)
        with _changing(live, texts_after(scene.events.snapshot)) as changed:
            busy = _ask(client, questions, "hybrid", count, at_least=5.0)
        rate = changed[0] / changed[1]
    slow, fast = quantile(busy, 95) * 1000, quantile(idle, 95) * 1000
    yield Figure(
        part=PART, name=f"search p95 while {CHANGES} documents a second are changed, against idle", value=slow / fast, unit="x",
        aim=2.5, better="less",
        detail=f"hybrid, p95 {slow:.1f} against {fast:.1f} ms, p50 {quantile(busy, 50) * 1000:.1f} against "
        f"{quantile(idle, 50) * 1000:.1f} ms; {rate:.1f} documents a second",
    )  # fmt: skip


def _ask(client: httpx.Client, questions: Iterator[str], mode: str, count: int, *, at_least: float = 0.0) -> list[float]:
    """Seconds of each search, without the first; so many of them, and for so many seconds."""
    ended = time.perf_counter() + at_least
    found = [timed(lambda: _search(client, next(questions), mode)) for _ in range(count + 1)][1:]
    while time.perf_counter() < ended:
        found.append(timed(lambda: _search(client, next(questions), mode)))
    return found


def _search(client: httpx.Client, question: str, mode: str) -> None:
    """One search, which must find something."""
    answer = client.post("/v1/search", json={"query": question, "mode": mode})
    assert answer.json()["results"], answer.text


@contextmanager
def _changing(live: Live, texts: dict[str, str]) -> Iterator[list[float]]:
    """Documents are changed meanwhile, one sentence each: [how many, in how many seconds]."""
    stop, choose, done = threading.Event(), random.Random(17), [0.0, 0.0]

    def change() -> None:
        started = time.perf_counter()
        while not stop.is_set():
            name = choose.choice(sorted(texts))
            texts[name] = edited(texts[name], choose)
            live.post([{"op": "upsert", "id": f"busy/{name}", "text": texts[name]}])
            done[0] += 1
            stop.wait(max(0.0, started + done[0] / CHANGES - time.perf_counter()))
        done[1] = time.perf_counter() - started

    live.index_all([{"op": "upsert", "id": f"busy/{name}", "text": text} for name, text in texts.items()])
    thread = threading.Thread(target=change, daemon=True)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()
        live.workers.caught_up(live.topic, live.ends, timeout=600)
