"""Changes and searches without end: of each kind that a dashboard counts, some in every round."""

import itertools
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import httpx
import psycopg

from support.encoders import MARK
from support.kafka import Log
from support.synthetic import sentence

DOCUMENTS = 300
PAUSE = 0.1  # seconds between two rounds
MODES = ("hybrid", "vector", "text")
SEED = 8


class Load:
    """Use it as a context. What fails while Postgres is away is asked again: others judge how the system fares."""

    def __init__(self, log: Log, topic: str, server: str, database_url: str) -> None:
        self._log, self._topic, self._server, self._url = log, topic, server, database_url
        self._choose = random.Random(SEED)
        self._stop = threading.Event()
        self._changing = threading.Lock()  # held for a round of changes, and while there are to be none
        self._threads = [threading.Thread(target=self._run, args=(work,), daemon=True) for work in (self._change, self._ask)]
        self._sql: psycopg.Connection[tuple[Any, ...]] | None = None
        self.failures: list[BaseException] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        if self._sql is not None:
            self._sql.close()
        if error is None:
            assert not self.failures, self.failures

    @contextmanager
    def resting(self) -> Iterator[None]:
        """No changes meanwhile, and searches go on: generations are built where there is nothing else to do."""
        with self._changing:
            yield

    def _run(self, work: Any) -> None:
        try:
            for number in itertools.count():
                if self._stop.is_set():
                    break
                work(number)
                self._stop.wait(PAUSE)
        except BaseException as error:  # noqa: BLE001 - told at the end
            self.failures.append(error)

    def _change(self, number: int) -> None:
        with self._changing:
            for event in self._events(number):
                self._log.post(self._topic, event, key=f"poison-{number}" if isinstance(event, bytes) else None)

    def _events(self, number: int) -> Iterator[dict[str, Any] | bytes]:
        """A new text, one of before, two changes of a document; now and then a deletion, and what cannot be taken."""
        name = f"doc/{number % DOCUMENTS}"
        text = "\n\n".join(sentence(self._choose, f"w{number}") for _ in range(5))
        yield {"id": name, "title": f"Title {number}", "text": text}
        yield {"id": "often", "text": "The same text, each time."}
        yield {"id": "often", "op": "metadata", "metadata": {"round": number}}
        if number % 10 == 0:
            yield {"id": f"doc/{(number + DOCUMENTS // 2) % DOCUMENTS}", "op": "delete"}
            yield b"{"
        if number % 40 == 0:
            yield {"id": f"unreadable/{number}", "text": f"{MARK} {number}"}

    def _ask(self, number: int) -> None:
        texts = {"new": f"what is said of w{number}", "old": "each time the same"}
        for text in texts.values():
            httpx.post(
                f"{self._server}/v1/search", json={"query": text, "mode": MODES[number % 3]}, timeout=30, trust_env=False
            )
        if number % 20 == 0:
            httpx.post(f"{self._server}/v1/search", json={"query": "", "k": 0}, timeout=30, trust_env=False)
        self._ask_in_sql(texts["new"])

    def _ask_in_sql(self, text: str) -> None:
        try:
            self._sql = self._sql or psycopg.connect(self._url, autocommit=True)
            self._sql.execute("select document_id from livedex.search(%s, k => 3)", (text,)).fetchall()
        except psycopg.OperationalError:  # the session was ended, or nobody answered in time
            if self._sql is not None:
                self._sql.close()
            self._sql = None
