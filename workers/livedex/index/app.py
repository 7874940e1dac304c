"""`livedex index`: puts the index worker together and runs it until it is asked to stop."""

import os
import random
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from fastapi import FastAPI

from livedex import migrate, tracing
from livedex.catalogue import Catalogue, Generation, Live, Target, opener
from livedex.config import GROUP, EmbedderName, Settings
from livedex.core.upkeep import Pace
from livedex.database import WRITER_SETTINGS, first_line, open_pool
from livedex.encoders import Encoder
from livedex.encoders.shelf import Shelf
from livedex.errors import ConfigError
from livedex.http_server import HttpServer, health_routes, listen
from livedex.index.building import BuildStore
from livedex.index.canary import CanaryThread
from livedex.index.claims import Claims
from livedex.index.holdings import Holdings
from livedex.index.maintain import Maintainer
from livedex.index.partition import Hold
from livedex.index.pipeline import Ownership, Pipeline
from livedex.index.source import KafkaSource
from livedex.index.spans import Spans
from livedex.index.stages import Stages
from livedex.index.store import STAGING_CONNECTIONS
from livedex.index.watch import Followed, Watch
from livedex.index.worker import IndexWorker
from livedex.lifecycle import Health, Stop, until_available
from livedex.observe import IndexMetrics, logger

T = TypeVar("T")
OpenEncoder = Callable[[EmbedderName, Generation], Encoder]

UPKEEP_ENDS = 2.0  # seconds that a cancelled build may take to end
CANARY_ENDS = 1.0  # seconds that the deletion of its documents may take
CONNECTIONS = 6 + STAGING_CONNECTIONS  # one for each thread that talks to Postgres

_log = logger("index")


class IndexApp:
    """The worker with all that it needs. `run` blocks; `stop.ask` ends it from any thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        stop: Stop | None = None,
        open_encoder: OpenEncoder | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._settings = settings
        self._pace = pace if pace is not None else Pace()  # of the upkeep
        self.stop = stop if stop is not None else Stop()
        self.metrics = IndexMetrics()
        self.health = Health(self.metrics.dependency_up, "kafka", "postgres", "embedder")
        self._watch: Watch | None = None
        self._shelf: Shelf[Generation] = Shelf(settings.embedder, open_encoder or opener(settings))
        self._worker: IndexWorker | None = None
        self._store: BuildStore | None = None
        app = FastAPI(title="livedex index", openapi_url=None)
        app.include_router(health_routes(self.health, self.metrics.registry, before_scrape=self._measure_progress))
        listener = listen(settings.http_host, settings.metrics_port, "LIVEDEX_METRICS_PORT")
        self.http = HttpServer(app, listener)
        self._began, self._started = time.time(), time.monotonic()
        # unique to this start, so that operators can tell two workers, and two lives of one, apart
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._tracer = tracing.start("livedex-index", self.name)

    def run(self) -> None:
        """Work until the stop. ConfigError when something is set up wrongly; what is down is waited for."""
        self.http.start()
        _log.info("index.started", name=self.name, address=self.http.address)
        try:
            self._run()
        finally:
            self.http.stop()
            self._tracer.close()
        _log.info("index.stopped", reason=self.stop.reason)

    def _run(self) -> None:
        self._wait(self._check_database)
        pool = open_pool(self._settings.database_url, size=CONNECTIONS, name=self.name, settings=WRITER_SETTINGS)
        self.metrics.pools.watch("index", pool)
        store = self._store = BuildStore(pool)
        followed = self._wait(store.catalogue)
        if followed is None:
            return
        catalogue = self._wait(lambda: self._catalogue(followed))
        if catalogue is None:
            return
        self.health.up("embedder")
        self._watch = Watch(
            self._settings.kafka, store, self.metrics, self.health, self.stop,
            followed=followed, open_catalogue=self._catalogue,
        )  # fmt: skip
        self._watch.start()  # also while Kafka is away: it tells that nobody reads
        source = self._wait(lambda: KafkaSource(self._settings.kafka, self.name))
        if source is None:
            return
        self.metrics.kafka_client.read = source.client_metrics
        ownership = Ownership()
        stages = Stages(
            store, self.metrics, failures_in_a_row=self._settings.failures_in_a_row, clock=time.time,
            stopped=lambda: self.stop.asked,
        )  # fmt: skip
        holdings = Holdings(
            source=source, claims=Claims(source, store, self.name), ownership=ownership, metrics=self.metrics,
            health=self.health, jitter=random.random,
        )  # fmt: skip
        spans = Spans(self._tracer, self.metrics, str(self._settings.kafka.client.get("group_id", GROUP)))
        worker = self._worker = IndexWorker(
            source=source,
            holdings=holdings,
            pipeline=Pipeline(stages, ownership, spans),
            ownership=ownership,
            catalogue=catalogue,
            metrics=self.metrics,
            spans=spans,
            health=self.health,
            stop=self.stop,
            between_steps=self._look_around,
        )
        maintainer = Maintainer(
            url=self._settings.database_url, kafka=self._settings.kafka, name=self.name, metrics=self.metrics, stop=self.stop,
            pace=self._pace, store=store, catalogue=lambda: worker.catalogue, busy=lambda: worker.bytes_in_flight > 0,
        )  # fmt: skip
        maintainer.start()
        canary = self._canary(worker, maintainer)
        worker.run()
        maintainer.join(UPKEEP_ENDS)
        if canary is not None:
            canary.join(CANARY_ENDS)
        store.close()

    def _canary(self, worker: IndexWorker, maintainer: Maintainer) -> CanaryThread | None:
        if not self._settings.canary_url:
            return None
        canary = CanaryThread(
            self._settings, self.metrics.registry, catalogue=lambda: worker.catalogue, elected=lambda: maintainer.elected,
            stop=self.stop,
        )  # fmt: skip
        canary.start()
        return canary

    def _wait(self, work: Callable[[], T]) -> T | None:
        return until_available(work, stop=self.stop, health=self.health, jitter=random.random)

    def _check_database(self) -> None:
        migrate.check_for_worker(self._settings.database_url)
        self.health.up("postgres")

    def _catalogue(self, followed: Followed) -> Catalogue:
        sources, live = followed
        if not sources:
            _log.warning("index.no_source", remedy="run livedex apply")
        for active, *_ in live.values():
            self.metrics.counts(active.collection)
        targets = {collection_id: tuple(self._opened(of)) for collection_id, of in live.items()}
        self._shelf.keep(made for of in live.values() for made in of)
        return Catalogue(sources=sources, targets=targets)

    def _opened(self, live: Live) -> Iterator[Target]:
        """With their encoders. One that is being built and whose model is not to be had here is left to other workers; a kept
        one is given up: else nothing of the collection could be applied.
        """
        assert self._store is not None
        active, *others = live
        yield Target(generation=active, encoder=self._shelf.open(active))
        for made in others:
            try:
                yield Target(generation=made, encoder=self._shelf.open(made))
            except Exception as error:  # whatever a model makes of the libraries
                what = {"generation": made.generation_id, "collection": made.collection, "why": first_line(error)}
                if made.state == "building":
                    _log.warning("index.generation_left_out", **what)
                    continue
                if not isinstance(error, ConfigError):
                    raise
                self._store.fail_generation(made, f"worker {self.name} cannot open its model: {error}")
                _log.error("index.generation_failed", **what)

    def _look_around(self, worker: IndexWorker) -> None:
        """Take up what the watch saw, and tell it what this worker reads."""
        watch = self._watch
        assert watch is not None
        watch.partitions, watch.joined = worker.holdings.partitions, worker.joined
        while not watch.catalogues.empty():
            worker.follow(watch.catalogues.get())
        while not watch.sources.empty():
            worker.follow(replace(worker.catalogue, sources=watch.sources.get()))
        while not watch.went_back.empty():
            partition = watch.went_back.get()
            if partition in worker.holdings.partitions:
                _log.warning("index.progress_went_back", topic=partition.topic, partition=partition.partition)
                worker.holdings.reclaim_now(partition)

    def _measure_progress(self) -> None:
        """Set the gauges that depend on the time of the scrape."""
        now, watch = time.time(), self._watch
        polled = None if self._worker is None else self._worker.polled_at
        self.metrics.last_poll_age.set(time.monotonic() - (self._started if polled is None else polled))
        if watch is None:  # what there is to follow cannot be asked yet: as far as the settings say
            for topic in self._settings.sources:
                self.metrics.staleness.labels(topic, "0").set(max(0.0, now - self._began))
            return
        ends, starts = watch.ends, watch.starts
        for gauge in (self.metrics.staleness, self.metrics.offset_lag, self.metrics.retained_offsets):
            gauge.clear()
        for partition in () if watch.joined else watch.unowned:  # there may be events since then, and nobody looks
            self.metrics.staleness.labels(partition.topic, str(partition.partition)).set(max(0.0, now - watch.began))
        if self._worker is None:
            return
        for partition, own in list(self._worker.holdings.partitions.items()):
            labels = (partition.topic, str(partition.partition))
            end = ends.get(partition, 0)
            self.metrics.staleness.labels(*labels).set(own.staleness(now, end))
            self.metrics.offset_lag.labels(*labels).set(own.progress.lag(end))
            if partition in starts and own.progress.next_offset is not None:
                self.metrics.retained_offsets.labels(*labels).set(max(0, own.progress.next_offset - starts[partition]))
        self._tell_generations(self._worker.catalogue)
        self._tell_held(self._worker)
        self.metrics.inflight_bytes.set(self._worker.bytes_in_flight)

    def _tell_held(self, worker: IndexWorker) -> None:
        held = worker.held
        self.metrics.paused_partitions.clear()
        for topic in {*worker.catalogue.sources, *(topic for topic, _ in held)}:
            for reason in Hold:
                self.metrics.paused_partitions.labels(topic, reason).set(held[topic, reason])

    def _tell_generations(self, catalogue: Catalogue) -> None:
        self.metrics.serves(made.identity.model for made in catalogue.generations.values())
        self.metrics.active_generation.clear()
        for active, *_ in catalogue.targets.values():
            made = active.generation
            self.metrics.active_generation.labels(made.collection).set(made.generation_id)
