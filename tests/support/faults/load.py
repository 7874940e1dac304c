"""Sends a script's events from several producers at a rate, and writes down which ones the broker acknowledged."""

import threading
import time
from collections.abc import Sequence
from typing import Any

from kafka import KafkaProducer

from livedex.config import KafkaSettings
from livedex.core.record import Place
from livedex.kafka import open_client
from support.faults.oplog import OpLog
from support.faults.script import Event

PATIENCE_MS = 180_000  # that a producer gives a broker which is away
NOTE_EVERY = 200  # acknowledged events between two lines of the operation log


class Load:
    """Producers in threads. Events of one document go to one producer, or to any when `shuffled`."""

    def __init__(
        self, settings: KafkaSettings, topics: Sequence[str], events: Sequence[Event], oplog: OpLog, *,
        producers: int = 2, rate: float | None = None, shuffled: bool = False,
    ) -> None:  # fmt: skip
        self.acknowledged: list[Place] = []
        self.failed: list[str] = []
        self._settings = settings
        self._topics = topics
        self._oplog = oplog
        self._rate = rate / producers if rate else None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        shares: list[list[Event]] = [[] for _ in range(producers)]
        for number, event in enumerate(events):
            shares[number % producers if shuffled else sum(event.name.encode()) % producers].append(event)
        self._threads = [
            threading.Thread(target=self._send_all, args=(number, share), name=f"producer-{number}", daemon=True)
            for number, share in enumerate(shares)
        ]

    def start(self) -> "Load":
        """Begin to send."""
        for thread in self._threads:
            thread.start()
        return self

    def give_up(self) -> None:
        """Send no more; does not wait."""
        self._stop.set()

    def stop(self) -> None:
        """Send no more, and wait until what was sent is acknowledged."""
        self._stop.set()
        self.finish()

    def finish(self, timeout: float = 300) -> None:
        """Wait until everything is sent and acknowledged."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads), f"the producers were not done within {timeout} s"
        assert not self.failed, self.failed[:3]

    @property
    def running(self) -> bool:
        """Whether events are still being sent."""
        return any(thread.is_alive() for thread in self._threads)

    def _send_all(self, number: int, events: Sequence[Event]) -> None:
        options = {
            "acks": "all", "enable_idempotence": False, "max_request_size": 32 * 2**20, "max_block_ms": PATIENCE_MS,
            "delivery_timeout_ms": PATIENCE_MS, "linger_ms": 2, "compression_type": "gzip",
        }  # fmt: skip
        producer = open_client(KafkaProducer, self._settings, f"load-{number}", **options)
        topic = self._topics[number % len(self._topics)]
        began = time.monotonic()
        try:
            for sent, event in enumerate(events):
                ahead = sent / self._rate - (time.monotonic() - began) if self._rate else 0.0
                if self._stop.wait(max(0.0, ahead)):
                    break
                future = producer.send(topic, key=event.key, value=event.value, headers=list(event.headers))
                future.add_callback(self._acknowledge)
                future.add_errback(self._fail)
            producer.flush(timeout=PATIENCE_MS / 1000)
        except Exception as error:  # noqa: BLE001 - told by `finish`
            self._fail(error)
        finally:
            producer.close(timeout=5)
        self._oplog.note(f"producer-{number}", "sent", events=len(events), topic=topic)

    def _acknowledge(self, metadata: Any) -> None:
        with self._lock:
            self.acknowledged.append(Place(metadata.topic, metadata.partition, metadata.offset))
            count = len(self.acknowledged)
        if count % NOTE_EVERY == 0:
            self._oplog.note("load", "acknowledged", count=count)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self.failed.append(f"{type(error).__name__}: {error}")
