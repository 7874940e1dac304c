"""The canary: a small document that is published, and searched for until it is found."""

from livedex_dashboards.frame import Board, Section
from livedex_dashboards.panels import Limits, PanelBuilder, Query, graph, heat, number
from livedex_dashboards.queries import both, highest, quantile, rates, ratio, unfound

RUNS = both("livedex_canary_runs_total")
FAILED = both("livedex_canary_runs_total", 'outcome="failed"')
BUCKETS = both("livedex_canary_seconds_bucket")


def board() -> Board:
    """The dashboard."""
    return Board(
        name="canary",
        title="Canary",
        description="True time from publishing to finding, through Kafka, an index worker, Postgres and a query worker.",
        variables=(),
        sections=(Section("Now", _now()), Section("From published to found", _found())),
    )


def _now() -> list[PanelBuilder]:
    return [
        number(
            "Last found",
            "How long ago, of the topic where that is longest. Several runs long: something on the way does not work, whatever"
            " other metrics say.",
            "s",
            highest(unfound()),
            limits=Limits(60, 120),
            width=6,
        ),
        number(
            "Failed",
            "Share of the runs in the time shown.",
            "percentunit",
            ratio(f"sum(increase({FAILED}[$__range]))", f"sum(increase({RUNS}[$__range]))"),
            limits=Limits(0.01, 0.05),
            width=6,
            decimals=2,
        ),
        number("Half", "Of the runs took no longer, in the time shown.", "s", _in_range(0.5), width=6),
        number("99 of 100", "Took no longer, in the time shown.", "s", _in_range(0.99), limits=Limits(10, 30), width=6),
    ]


def _found() -> list[PanelBuilder]:
    return [
        graph(
            "Time",
            "From published to found by a search. Above freshness by what a search and the canary's own looks take; far"
            " above: searches do not see what is applied, look at standbys and at the filters of indexes.",
            "s",
            Query(quantile(0.5, BUCKETS), "half"),
            Query(quantile(0.99, BUCKETS), "99 %"),
            limits=Limits(10, 30),
        ),
        heat("All runs", "How many took how long.", "s", rates(BUCKETS, "le"), width=8),
        graph(
            "Runs",
            "By outcome.",
            "ops",
            Query(rates(RUNS, "outcome"), "{{outcome}}"),
            stacked=True,
            colours={"found": "green", "failed": "red"},
        ),
        graph(
            "Last found, by topic",
            "How long ago. Each topic has its turn; one line that rises beside others that do not is a fault of that topic.",
            "s",
            Query(unfound(), "{{topic}}"),
            limits=Limits(150, 300),
            width=12,
        ),
        graph(
            "Failed, by topic",
            "Of the last hour. Above 1 % again and again: one of the partitions, or one of the query workers.",
            "percentunit",
            Query(ratio(f"sum by (topic) (increase({FAILED}[1h]))", f"sum by (topic) (increase({RUNS}[1h]))"), "{{topic}}"),
            limits=Limits(0.01, 0.05),
            width=12,
        ),
    ]


def _in_range(share: float) -> str:
    return f"histogram_quantile({share}, sum by (le) (increase({BUCKETS}[$__range])))"
