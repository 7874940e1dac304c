"""What operators see: structured logs without document text, and the metrics of contracts.md section 7.

Nothing is registered at import: each worker makes its own metrics in its own registry.
"""

import logging
import sys
from collections.abc import Iterable
from typing import Literal

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from livedex import __version__
from livedex.collectors import KafkaClientCollector, PoolCollector
from livedex.core.change import Op
from livedex.core.plan import Outcome

# Every threshold that an alert may use is an edge.
FRESHNESS_BUCKETS = (
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    1800,
    3600,
    7200,
    21600,
)  # s
WORK_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)  # seconds

USUAL_CODES = {
    "http": ("200", "400", "401", "403", "404", "413", "429", "500", "503", "504"),
    "sql": ("00000", "22023", "28000", "54000", "57014", "57P03"),
}

Logger = structlog.stdlib.BoundLogger


def configure_logging(form: Literal["console", "json"]) -> None:
    """Send log lines to stderr, one JSON object a line or for a terminal; libraries' warnings come along."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if form == "console":
        last = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("livedex").setLevel(logging.INFO)
    # both repeat what the dependency gauge and its one log line say, several times a second; the first with tracebacks, and
    # at its debug level with passwords
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    # it prints the message of an error that was answered and logged already, and that may quote a document
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)


def logger(name: str) -> Logger:
    """A logger below `livedex`; events are dotted names, everything else is a field."""
    made: Logger = structlog.stdlib.get_logger(f"livedex.{name}")
    return made


class _Metrics:
    """What both workers have: who they are, and which dependency answers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.dependency_up = Gauge(
            "livedex_dependency_up", "1 when the dependency answers", ["dependency"], registry=self.registry
        )
        self._build_info = Gauge(
            "livedex_build_info", "Version and model of this worker", ["version", "model"], registry=self.registry
        )
        self.active_generation = Gauge(
            "livedex_active_generation", "Number of the generation that is searched: another one after a switch",
            ["collection"], registry=self.registry,
        )  # fmt: skip
        self.pools = PoolCollector()
        self.registry.register(self.pools)

    def serves(self, models: Iterable[str]) -> None:
        """Say which models this worker runs now."""
        self._build_info.clear()
        self._build_info.labels(__version__, ", ".join(sorted(set(models)))).set(1)


class IndexMetrics(_Metrics):
    """The metrics of `livedex index`."""

    def __init__(self) -> None:
        super().__init__()
        registry = self.registry
        self.freshness = Histogram(
            "livedex_freshness_seconds", "From the later of event time and Kafka timestamp to searchable",
            ["collection", "op"], buckets=FRESHNESS_BUCKETS, registry=registry,
        )  # fmt: skip
        self.embedding_lag = Histogram(
            "livedex_embedding_lag_seconds", "From record polled to embedded",
            ["collection"], buckets=FRESHNESS_BUCKETS, registry=registry,
        )  # fmt: skip
        self.staleness = Gauge(
            "livedex_staleness_seconds", "Age of the oldest event not yet applied, 0 when caught up",
            ["topic", "partition"], registry=registry,
        )  # fmt: skip
        self.offset_lag = Gauge(
            "livedex_offset_lag", "Offsets between the end of the log and the progress",
            ["topic", "partition"], registry=registry,
        )  # fmt: skip
        self.stage = Histogram(
            "livedex_stage_seconds",
            "Time that a batch spent in a stage",
            ["stage"],
            buckets=WORK_BUCKETS,
            registry=registry,
        )
        self.events = Counter("livedex_events", "Events by what became of them", ["collection", "outcome"], registry=registry)
        self.chunks = Counter(
            "livedex_chunks", "Chunks embedded, and chunks of applied batches that were not", ["collection", "outcome"],
            registry=registry,
        )  # fmt: skip
        self.dead_letters_open = Gauge("livedex_dead_letters_open", "Open dead letters", ["reason"], registry=registry)
        self.paused_partitions = Gauge(
            "livedex_paused_partitions", "Partitions of this worker that are not read at the moment, by what is waited for",
            ["topic", "reason"], registry=registry,
        )  # fmt: skip
        self.inflight_bytes = Gauge(
            "livedex_inflight_bytes", "Bytes of records that were polled and are not applied yet", registry=registry
        )
        self.fenced = Counter("livedex_fenced", "Batches refused because the partition had another owner", registry=registry)
        self.clock_skew = Counter(
            "livedex_clock_skew", "Events that were searchable before their time: a producer's clock or this worker's is wrong",
            registry=registry,
        )  # fmt: skip
        self.rebalances = Counter("livedex_rebalances", "Changes of the partitions of this worker", registry=registry)
        self.retries = Counter("livedex_retries", "Work begun again after a failure", ["dependency"], registry=registry)
        for dependency in ("kafka", "postgres", "embedder"):
            self.retries.labels(dependency)
        self.index_ready = Gauge(
            "livedex_index_ready", "1 when searches can use a vector index; of the worker that does the upkeep", ["collection"],
            registry=registry,
        )  # fmt: skip
        self.index_recall = Gauge(
            "livedex_index_recall", "Share of the ten nearest vectors that the vector index finds, by the last probe",
            ["collection"], registry=registry,
        )  # fmt: skip
        self.unmapped_share = Gauge(
            "livedex_unmapped_share", "Share of the vectors that no document has", ["collection"], registry=registry
        )
        self.index_state = Gauge(
            "livedex_index_state", "1 for what the vector index is now; of the worker that does the upkeep",
            ["collection", "state"], registry=registry,
        )  # fmt: skip
        self.documents = Gauge("livedex_documents", "Visible documents", ["collection"], registry=registry)
        self.vectors = Gauge(
            "livedex_vectors", "Vectors of the active generation, as a sample tells", ["collection"], registry=registry
        )
        self.table_bytes = Gauge(
            "livedex_table_bytes", "Size of the table of vectors of the active generation", ["collection"], registry=registry
        )
        self.index_bytes = Gauge("livedex_index_bytes", "Size of its vector index", ["collection"], registry=registry)
        self.built_ratio = Gauge(
            "livedex_generation_built_ratio", "Share of the documents that a generation has which is being built",
            ["collection", "generation"], registry=registry,
        )  # fmt: skip
        self.last_poll = Gauge(
            "livedex_last_poll_timestamp_seconds", "When Kafka was polled last without an error, by this worker's clock",
            registry=registry,
        )  # fmt: skip
        self.last_poll_age = Gauge(
            "livedex_last_poll_age_seconds", "Since the last poll without an error, or the start, whatever the clock says",
            registry=registry,
        )  # fmt: skip
        self.retained_offsets = Gauge(
            "livedex_retained_offsets", "Offsets from the start of the log to the progress: at 0, the next deletion loses some",
            ["topic", "partition"], registry=registry,
        )  # fmt: skip
        self.retention = Gauge(
            "livedex_retention_seconds", "After what time the broker deletes records of a topic, where it does",
            ["topic"], registry=registry,
        )  # fmt: skip
        self.records_consumed = Counter("livedex_kafka_records_consumed", "Records polled", registry=registry)
        self.bytes_consumed = Counter("livedex_kafka_bytes_consumed", "Their keys and values", registry=registry)
        self.kafka_client = KafkaClientCollector()
        registry.register(self.kafka_client)

    def counts(self, collection: str) -> None:
        """Begin its counters at 0: a series that begins with its first event shows no increase."""
        for outcome in Outcome:
            self.events.labels(collection, outcome)
        for what in ("embedded", "reused"):
            self.chunks.labels(collection, what)
        for op in Op:
            self.freshness.labels(collection, op)


class QueryMetrics(_Metrics):
    """The metrics of `livedex serve`."""

    def __init__(self) -> None:
        super().__init__()
        registry = self.registry
        self.search = Histogram(
            "livedex_search_seconds",
            "Time of a whole search",
            ["route", "mode"],
            buckets=WORK_BUCKETS,
            registry=registry,
        )
        self.search_stage = Histogram(
            "livedex_search_stage_seconds",
            "Time of a search in a stage",
            ["stage"],
            buckets=WORK_BUCKETS,
            registry=registry,
        )
        self.requests = Counter("livedex_search_requests", "Searches by answer", ["route", "code"], registry=registry)
        for route, codes in USUAL_CODES.items():  # at 0 from the start: a series that begins later shows no increase
            for code in codes:
                self.requests.labels(route, code)
            for mode in ("hybrid", "vector", "text"):
                self.search.labels(route, mode)
        self.waiting = Gauge("livedex_search_waiting", "Searches over HTTP that wait for their turn", registry=registry)
        self.cache = Counter(
            "livedex_query_cache", "Texts to embed, by whether their vector was kept", ["outcome"], registry=registry
        )
        self.degraded = Counter(
            "livedex_search_degraded", "Searches answered without the reranking that was asked for", registry=registry
        )
