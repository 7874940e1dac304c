"""Metrics of the libraries underneath, read when somebody scrapes: the pools of connections, and the Kafka client."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from psycopg_pool import ConnectionPool


class PoolCollector(Collector):
    """What the pools of a worker say of themselves."""

    def __init__(self) -> None:
        self._pools: dict[str, ConnectionPool[Any]] = {}

    def watch(self, name: str, pool: ConnectionPool[Any]) -> None:
        """Tell of this pool too, under this name."""
        self._pools = {**self._pools, name: pool}

    def collect(self) -> Iterable[Metric]:
        """One family a figure, one series a pool."""
        connections = GaugeMetricFamily(
            "livedex_pool_connections", "Connections to Postgres by what they do", labels=["pool", "state"]
        )
        waiting = GaugeMetricFamily("livedex_pool_waiting", "Threads that wait for a connection", labels=["pool"])
        requests = CounterMetricFamily("livedex_pool_requests", "Connections asked for", labels=["pool"])
        seconds = CounterMetricFamily("livedex_pool_wait_seconds", "Time that was waited for them", labels=["pool"])
        errors = CounterMetricFamily(
            "livedex_pool_errors", "Connections asked for in vain, and those that could not be made", labels=["pool"]
        )
        for name, pool in self._pools.items():
            stats = pool.get_stats()
            idle = stats.get("pool_available", 0)
            connections.add_metric([name, "idle"], idle)
            connections.add_metric([name, "used"], max(0, stats.get("pool_size", 0) - idle))
            waiting.add_metric([name], stats.get("requests_waiting", 0))
            requests.add_metric([name], stats.get("requests_num", 0))
            seconds.add_metric([name], stats.get("requests_wait_ms", 0) / 1000)
            errors.add_metric([name], stats.get("requests_errors", 0) + stats.get("connections_errors", 0))
        return [connections, waiting, requests, seconds, errors]


# what the client calls it, what it is called here, and what it is divided by
_KAFKA = (
    ("fetch-latency-avg", "livedex_kafka_fetch_latency_seconds", "Mean time of a fetch, a long poll included", 1000.0),
    ("connection-count", "livedex_kafka_connections", "Connections to brokers", 1.0),
    ("last-heartbeat-seconds-ago", "livedex_kafka_heartbeat_age_seconds", "Time since the last heartbeat to the group", 1.0),
)


class KafkaClientCollector(Collector):
    """What the Kafka consumer says of itself, once there is one."""

    def __init__(self) -> None:
        self.read: Callable[[], Mapping[str, float]] = dict  # the client's own values by its own names

    def collect(self) -> Iterable[Metric]:
        """Without values that the client does not know, or not yet."""
        values = self.read()
        for theirs, ours, meaning, unit in _KAFKA:
            family = GaugeMetricFamily(ours, meaning)
            if theirs in values:
                family.add_metric([], values[theirs] / unit)
            yield family
