"""`livedex index`: puts the index worker together and runs it until it is asked to stop."""

import os
import random
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from fastapi import FastAPI

from livedex import migrate
from livedex.catalogue import Generation, open_checked
from livedex.config import EmbedderName, Settings
from livedex.database import open_pool
from livedex.encoders import Encoder
from livedex.errors import ConfigError
from livedex.http_server import HttpServer, health_routes, listen
from livedex.index.pipeline import Ownership, Pipeline
from livedex.index.source import KafkaSource
from livedex.index.stages import Stages
from livedex.index.store import STAGING_CONNECTIONS, Store
from livedex.index.watch import Followed, Watch
from livedex.index.worker import Catalogue, IndexWorker
from livedex.lifecycle import Health, Stop, until_available
from livedex.observe import IndexMetrics, logger

T = TypeVar("T")
OpenEncoder = Callable[[EmbedderName, Generation], Encoder]

CONNECTIONS = 5 + STAGING_CONNECTIONS  # one for each thread that talks to Postgres

_log = logger("index")


class IndexApp:
    """The worker with all that it needs. `run` blocks; `stop.ask` ends it from any thread."""

    def __init__(self, settings: Settings, *, stop: Stop | None = None, open_encoder: OpenEncoder = open_checked) -> None:
        self._settings = settings
        self._open_encoder = open_encoder
        self.stop = stop if stop is not None else Stop()
        self.metrics = IndexMetrics()
        self.health = Health(self.metrics.dependency_up, "kafka", "postgres", "embedder")
        self._watch: Watch | None = None
        self._followed: Followed | None = None
        self._worker: IndexWorker | None = None
        app = FastAPI(title="livedex index", openapi_url=None)
        app.include_router(health_routes(self.health, self.metrics.registry, before_scrape=self._measure_progress))
        listener = listen(settings.http_host, settings.metrics_port, "LIVEDEX_METRICS_PORT")
        self.http = HttpServer(app, listener)
        # unique to this start, so that operators can tell two workers, and two lives of one, apart
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"

    def run(self) -> None:
        """Work until the stop. ConfigError when something is set up wrongly; what is down is waited for."""
        self.http.start()
        _log.info("index.started", name=self.name, address=self.http.address)
        try:
            self._run()
        finally:
            self.http.stop()
        _log.info("index.stopped", reason=self.stop.reason)

    def _run(self) -> None:
        self._wait(self._check_database)
        store = Store(open_pool(self._settings.database_url, size=CONNECTIONS, name=self.name))
        followed = self._wait(store.catalogue)
        if followed is None:
            return
        self._followed = followed
        catalogue = self._catalogue(followed, {})
        self.health.up("embedder")
        self.metrics.serves(", ".join(sorted({g.identity.model for g in catalogue.generations.values()})))
        source = self._wait(lambda: KafkaSource(self._settings.kafka, self.name))
        if source is None:
            return
        self._watch = Watch(self._settings.kafka, store, self.metrics, self.health, self.stop)
        ownership = Ownership()
        stages = Stages(store, self.metrics, clock=time.time, stopped=lambda: self.stop.asked)
        self._worker = IndexWorker(
            source=source,
            store=store,
            pipeline=Pipeline(stages, ownership, self.metrics),
            ownership=ownership,
            catalogue=catalogue,
            metrics=self.metrics,
            health=self.health,
            stop=self.stop,
            name=self.name,
            between_steps=self._look_around,
        )
        self._watch.start()
        self._worker.run()
        store.close()

    def _wait(self, work: Callable[[], T]) -> T | None:
        return until_available(work, stop=self.stop, health=self.health, jitter=random.random)

    def _check_database(self) -> None:
        migrate.check_for_worker(self._settings.database_url)
        self.health.up("postgres")

    def _catalogue(self, followed: Followed, opened: Mapping[int, Encoder]) -> Catalogue:
        sources, generations = followed
        if not sources:
            _log.warning("index.no_source", remedy="run livedex apply")
        encoders = {
            generation.generation_id: opened.get(generation.generation_id)
            or self._open_encoder(self._settings.embedder, generation)
            for generation in generations.values()
        }
        return Catalogue(sources=sources, generations=generations, encoders=encoders)

    def _look_around(self, worker: IndexWorker) -> None:
        """Take up what `livedex apply` changed, and tell the watch what this worker reads."""
        assert self._watch is not None
        self._watch.partitions = frozenset(worker.progress)
        self._watch.joined = worker.joined
        followed = self._watch.followed
        if followed is None or followed == self._followed:
            return
        self._followed = followed
        try:
            worker.follow(self._catalogue(followed, worker.catalogue.encoders))
        except ConfigError as error:
            _log.error("index.change_refused", why=str(error))

    def _measure_progress(self) -> None:
        """Set the gauges that depend on the time of the scrape."""
        if self._worker is None or self._watch is None:
            return
        now, ends = time.time(), self._watch.ends
        self.metrics.staleness.clear()
        self.metrics.offset_lag.clear()
        for partition, progress in list(self._worker.progress.items()):
            labels = (partition.topic, str(partition.partition))
            end = ends.get(partition, 0)
            self.metrics.staleness.labels(*labels).set(progress.staleness(now, end))
            self.metrics.offset_lag.labels(*labels).set(progress.lag(end))
