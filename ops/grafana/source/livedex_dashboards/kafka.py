"""The log: how far behind each partition is, what retention leaves, and how the consumers fare."""

from livedex_dashboards import objectives as slo
from livedex_dashboards.frame import TOPIC, WORKER, Board, Section
from livedex_dashboards.panels import Limits, PanelBuilder, Query, graph, number
from livedex_dashboards.queries import TOPIC as OF_TOPIC
from livedex_dashboards.queries import highest, index, rate, rates, total

LAG = index("livedex_offset_lag", OF_TOPIC)
STALENESS = index("livedex_staleness_seconds", OF_TOPIC)
RETAINED = index("livedex_retained_offsets", OF_TOPIC)
STALE = Limits(slo.STALE_AFTER / 5, slo.STALE_AFTER)
NOT_POLLED = Limits(slo.NOT_POLLING_AFTER / 4, slo.NOT_POLLING_AFTER)
PLACE = "{{topic}} / {{partition}}"
POLLED = index("livedex_last_poll_age_seconds")


def board() -> Board:
    """The dashboard."""
    return Board(
        name="kafka",
        title="Kafka",
        description="How far behind the log each partition is, what retention leaves of it, and how the consumers fare.",
        variables=(WORKER, TOPIC),
        sections=(
            Section("Now", _now()),
            Section("Behind the log", _behind()),
            Section("Retention", _retention()),
            Section("Consumers", _consumers()),
        ),
    )


def _now() -> list[PanelBuilder]:
    return [
        number(
            "Kafka",
            "The smallest answer of all workers: 1 where Kafka answers each of them.",
            "none",
            f"min({index('livedex_dependency_up', _KAFKA)})",
            limits=Limits(1, 1, low=True),
            texts={"1": ("up", "green"), "0": ("down", "red")},
        ),
        number(
            "Offsets behind",
            "Between the ends of the log and the progress, of all partitions.",
            "short",
            total(highest(LAG, "topic", "partition")),
        ),
        number("Oldest event not applied", "Its age in the worst partition.", "s", highest(STALENESS), limits=STALE),
        number(
            "Partitions",
            "That have a worker which reads them, or wait for one.",
            "none",
            f"count({highest(LAG, 'topic', 'partition')})",
        ),
        number(
            "Since the last poll",
            "The longest of all workers. A worker that does not poll loses its partitions after its session's timeout.",
            "s",
            f"max({POLLED})",
            limits=NOT_POLLED,
        ),
        number(
            "Rebalances",
            "Changes of partitions, of all workers in the last hour. Each deployment makes some; more than ten"
            " without one: the group flaps.",
            "none",
            f"sum(increase({index('livedex_rebalances_total')}[1h]))",
            limits=Limits(10, 30),
            decimals=0,
        ),
    ]


def _behind() -> list[PanelBuilder]:
    return [
        graph(
            "Offsets behind",
            "Between the end of the log and the progress. It may be large in a backfill; what users feel is the"
            " staleness beside it.",
            "short",
            Query(highest(LAG, "topic", "partition"), PLACE),
        ),
        graph(
            "Staleness",
            "Age of the oldest event that is not applied, 0 when caught up.",
            "s",
            Query(highest(STALENESS, "topic", "partition"), PLACE),
            limits=STALE,
        ),
        graph(
            "Growing or shrinking",
            "How fast the offsets behind change; below 0 the workers catch up. Above 0 for long: more"
            " workers are needed, up to the number of partitions, or a faster encoder.",
            "cps",
            Query(f"sum by (topic) (deriv({LAG}[5m]))", "{{topic}}"),
            signed=True,
        ),
        graph(
            "Partitions of each worker",
            "They should be shared evenly. A worker without any is idle.",
            "none",
            Query(f"count by (instance) ({LAG})"),
            stacked=True,
            steps=True,
        ),
        graph("Records read", "From Kafka, by worker.", "recps", Query(rate(index("livedex_kafka_records_consumed_total")))),
        graph("Bytes read", "Keys and values, by worker.", "Bps", Query(rate(index("livedex_kafka_bytes_consumed_total")))),
    ]


def _retention() -> list[PanelBuilder]:
    kept = highest(index("livedex_retention_seconds", OF_TOPIC), "topic")
    spare = f"{kept} - {highest(STALENESS, 'topic')}"
    return [
        graph(
            "Offsets before the log's start",
            "From the start of the log to the progress. At 0 while there is lag, the broker's"
            " next deletion loses events that nobody applied: raise the retention at once.",
            "short",
            Query(f"min by (topic, partition) ({RETAINED})", PLACE),
            width=12,
        ),
        graph(
            "Time until events are lost",
            "The topic's retention less the staleness. Topics that the broker does not delete from by time are not here.",
            "s",
            Query(spare, "{{topic}}"),
            limits=Limits(86_400, 21_600, low=True),
            width=12,
        ),
    ]


def _consumers() -> list[PanelBuilder]:
    return [
        graph(
            "Since the last poll",
            "By worker. It stays near 0, also while events wait: partitions are paused then.",
            "s",
            Query(POLLED),
            limits=NOT_POLLED,
        ),
        graph(
            "Since the last heartbeat",
            "By worker. Beyond the session's timeout the group gives its partitions away.",
            "s",
            Query(index("livedex_kafka_heartbeat_age_seconds")),
            limits=Limits(10, 30),
        ),
        graph(
            "Rebalances",
            "Changes of the partitions of a worker, in an hour.",
            "none",
            Query(f"increase({index('livedex_rebalances_total')}[1h])"),
            limits=Limits(10, 30),
        ),
        graph(
            "Time of a fetch",
            "Mean of the client, the broker's waiting for records included: up to half a second when nothing is there.",
            "s",
            Query(index("livedex_kafka_fetch_latency_seconds")),
        ),
        graph("Connections", "To brokers, by worker.", "none", Query(index("livedex_kafka_connections")), steps=True),
        graph(
            "Kafka's failures",
            "Polls that were begun again.",
            "ops",
            Query(f"{rates(index('livedex_retries_total', _KAFKA), 'instance')} or 0 * {_WORKERS}"),
        ),
    ]


_KAFKA = 'dependency="kafka"'
_WORKERS = total(index("livedex_dependency_up", _KAFKA), "instance")
