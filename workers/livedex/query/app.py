"""`livedex serve`: puts the query worker together and runs it until it is asked to stop."""

import ipaddress
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import psycopg
from fastapi import FastAPI

from livedex import __version__, catalogue, migrate, tracing
from livedex.catalogue import Generation, opener
from livedex.config import Settings
from livedex.database import first_line, open_pool, query, translated
from livedex.errors import ConfigError, UnavailableError, loggable
from livedex.http_server import HttpServer, health_routes, listen
from livedex.lifecycle import Health, Stop, until_available
from livedex.observe import QueryMetrics, logger
from livedex.query.access import Tokens
from livedex.query.active import Encoders, OpenEncoder
from livedex.query.answering import Answering
from livedex.query.embedding import QueryEmbedder
from livedex.query.front import CheckHost, CheckToken, CountSearches, LimitBody
from livedex.query.letter_desk import LetterDesk
from livedex.query.log_watch import LogWatch
from livedex.query.mailbox import Mailbox
from livedex.query.operating import operating_routes
from livedex.query.pages import page_routes
from livedex.query.problems import Problems
from livedex.query.reports import Reports
from livedex.query.searcher import Searcher
from livedex.query.server import search_routes
from livedex.query.traced import TraceRequests
from livedex.query.wire import endpoint
from livedex.query.wire_answer import Answerer
from livedex.resources import processors

LOOK_EVERY = 1.0  # seconds between looks at whether Postgres answers, and what is active there

_log = logger("query")
T = TypeVar("T")


class QueryApp:
    """The worker with all that it needs. `run` blocks; `stop.ask` ends it from any thread."""

    def __init__(self, settings: Settings, *, stop: Stop | None = None, open_encoder: OpenEncoder | None = None) -> None:
        _refuse_exposure(settings)
        self._tokens = Tokens(settings.api_tokens_file) if settings.api_tokens_file else None
        self._settings = settings
        self.stop = stop if stop is not None else Stop()
        self.metrics = QueryMetrics()
        self.health = Health(self.metrics.dependency_up, "postgres", "embedder")
        self.name = f"livedex-serve-{socket.gethostname()}-{os.getpid()}"
        self._tracer = tracing.start("livedex-serve", self.name)
        self._connections = 2 * processors()  # more would wait for a core inside the database
        self._pool = open_pool(settings.database_url, size=self._connections, name=self.name)
        self._probe = open_pool(settings.database_url, size=1, name=f"{self.name}-probe")  # searches cannot keep it busy
        self.metrics.pools.watch("search", self._pool)
        self.metrics.pools.watch("probe", self._probe)
        self._encoders = Encoders(settings.embedder, self._pool, open_encoder or opener(settings))
        self._embedder = QueryEmbedder(self._encoders, self.metrics, told=self._note_embedder)
        answerer = Answerer(self._encoders, self._embedder, self.metrics, self._mailbox_secret, self._tracer)
        self.wire = endpoint(settings, answerer)
        self._reports = Reports(settings.database_url, self.name, LogWatch(settings.kafka))
        self.metrics.pools.watch("status", self._reports.pool)
        self.http = HttpServer(self._application(), listen(settings.http_host, settings.http_port, "LIVEDEX_HTTP_PORT"))

    def _application(self) -> FastAPI:
        summary = "Search an index that follows a log, seconds fresh."
        # FastAPI's own pages load scripts from elsewhere: /docs is one of page_routes
        app = FastAPI(title="livedex", version=__version__, summary=summary, docs_url=None, redoc_url=None)
        app.add_middleware(LimitBody)
        pages, without_token = page_routes()
        app.add_middleware(CheckToken, tokens=self._tokens, also_open=without_token)
        if self._tokens is None:
            app.add_middleware(CheckHost)
        app.add_middleware(CountSearches, metrics=self.metrics)  # outside of the others: it sees every answer
        app.add_middleware(TraceRequests, tracer=self._tracer)
        problems = Problems(self.health)
        problems.add_to(app)
        searcher = Searcher(self._pool, self._encoders, self._embedder, self.metrics, self._tracer)
        # while some have their queries embedded together, as many use the connections
        slots, queue = 2 * self._connections, self._settings.http_queue
        self._answering = Answering(searcher, self.metrics, problems, slots=slots, queue=queue)
        app.include_router(search_routes(self._answering, self._reports.status, tokens=self._tokens is not None))
        desk = LetterDesk(self._settings, self._pool, self._encoders, tokens=self._tokens is not None)
        app.include_router(operating_routes(self._reports, desk, tokens=self._tokens is not None))
        app.include_router(health_routes(self.health, self.metrics.registry, before_scrape=self._tell_generations))
        app.include_router(pages)
        return app

    def run(self) -> None:
        """Answer until the stop. ConfigError when something is set up wrongly; what is down is waited for."""
        self.http.start()
        _log.info("query.started", name=self.name, address=self.http.address)
        try:
            self._wait(self._check_database)
            self._wait(self._load_models)
            for mailbox in self._mailboxes():
                mailbox.start()
            if self.wire is not None:
                self.wire.start()
            while not self.stop.wait(LOOK_EVERY):
                try:
                    self._look_around()
                except Exception as error:  # noqa: BLE001 - nothing that is found ends a running worker
                    _log.error("query.look_failed", error=type(error).__name__)
        finally:
            self.http.stop()
            if self.wire is not None:
                self.wire.stop()
            for pool in (self._pool, self._probe, self._reports.pool):  # a query under way must not delay the exit
                threading.Thread(target=pool.close, daemon=True).start()
            self._tracer.close()
        _log.info("query.stopped", reason=self.stop.reason)

    def _wait(self, work: Callable[[], T]) -> T | None:
        return until_available(work, stop=self.stop, health=self.health, jitter=random.random)

    def _check_database(self) -> None:
        migrate.check_for_worker(self._settings.database_url)
        self.health.up("postgres")

    def _load_models(self) -> None:
        generations = self._encoders.refresh()
        for generation in generations:
            self._encoders.load(generation)
        for name in self._encoders.missing_rerankers(time.monotonic()):
            self._load_reranker(name)
        self.health.up("embedder")

    def _mailboxes(self) -> list[Mailbox]:
        """One for the primary, and one for each standby whose sessions search too."""
        servers = ["", *self._settings.standby_urls.split()]
        return [self._mailbox(standby) for standby in servers]

    def _mailbox(self, standby: str) -> Mailbox:
        primary = self._settings.database_url
        return Mailbox(
            primary, self._encoders, self._embedder, self.metrics, self.stop, standby=standby, name=self.name,
            tracer=self._tracer,
        )  # fmt: skip

    def _mailbox_secret(self) -> bytes:
        with translated(), self._pool.connection() as connection:
            (secret,) = connection.execute(query("mailbox", "secret")).fetchone() or (b"",)
        return bytes(secret)

    def _look_around(self) -> None:
        """See whether Postgres answers, and whether `livedex apply` made a collection."""
        try:
            with translated(), self._probe.connection() as connection:
                live = catalogue.live(connection)
        except (UnavailableError, psycopg.Error) as error:
            self.health.down("postgres", first_line(error))
            return
        self.health.up("postgres")
        self._encoders.follow(live.values())
        for generation in self._encoders.missing(time.monotonic()):
            self._load(generation)
        for name in self._encoders.missing_rerankers(time.monotonic()):
            self._load_reranker(name)
        self._encoders.drop_unused()
        if "embedder" in self.health.waiting_for:  # no searches come while the worker is not ready
            for generation in self._encoders.served().values():
                self._embedder.probe(generation)

    def _note_embedder(self, error: UnavailableError | None) -> None:
        if error is None:
            self.health.up("embedder")
        else:
            self.health.down("embedder", error)

    def _load(self, generation: Generation) -> None:
        try:
            self._encoders.load(generation)
        except Exception as error:  # noqa: BLE001 - whatever a model's library raises, the other collections are searched
            self._encoders.refuse(generation, error, time.monotonic())
            _log.error("query.model_refused", collection=generation.collection, why=loggable(error))
        else:
            _log.info("query.model_loaded", collection=generation.collection, model=generation.identity.model)

    def _load_reranker(self, name: str) -> None:
        try:
            self._encoders.load_reranker(name, time.monotonic())
        except Exception as error:  # noqa: BLE001 - whatever a model's library raises, searches go on without it
            _log.error("query.reranker_refused", reranker=name, why=first_line(error))
        else:
            _log.info("query.reranker_loaded", reranker=name)

    def _tell_generations(self) -> None:
        served = self._encoders.served()
        self.metrics.serves(generation.identity.model for generation in served.values())
        self.metrics.active_generation.clear()
        for collection, generation in served.items():
            self.metrics.active_generation.labels(collection).set(generation.generation_id)


def _refuse_exposure(settings: Settings) -> None:
    """Answer this machine only, unless tokens say who may ask."""
    if settings.api_tokens_file is not None:
        return
    try:
        loopback = ipaddress.ip_address(settings.http_host).is_loopback
    except ValueError:
        loopback = settings.http_host == "localhost"
    if not loopback:
        raise ConfigError(
            f"LIVEDEX_HTTP_HOST is {settings.http_host}, and anybody there could search: name a file of API tokens in "
            "LIVEDEX_API_TOKENS_FILE, or keep 127.0.0.1"
        )
