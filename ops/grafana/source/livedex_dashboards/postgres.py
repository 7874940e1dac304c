"""Postgres and the vector indexes: sizes, how good and how ready they are, and the workers' connections."""

from livedex_dashboards import objectives as slo
from livedex_dashboards.frame import COLLECTION, Board, Section
from livedex_dashboards.panels import Limits, PanelBuilder, Query, graph, number, timeline
from livedex_dashboards.queries import COLLECTION as IN_COLLECTION
from livedex_dashboards.queries import both, highest, quantile, rates, total

RECALL = Limits((1 + slo.RECALL) / 2, slo.RECALL, low=True)
POSTGRES = 'dependency="postgres"'
STATES = {"0": ("none", "yellow"), "1": ("building", "blue"), "2": ("ready", "green"), "3": ("invalid", "red")}
NAME = "{{collection}}"


def board() -> Board:
    """The dashboard."""
    return Board(
        name="postgres",
        title="Postgres and indexes",
        description="Whether searches use a good vector index, how large everything is, and how the workers' connections fare.",
        variables=(COLLECTION,),
        sections=(
            Section("Now", _now()),
            Section("Vector indexes", _indexes()),
            Section("Sizes", _sizes()),
            Section("Writing", _writing()),
            Section("Connections", _connections()),
        ),
    )


def _of(metric: str, *more: str) -> str:
    return highest(both(metric, IN_COLLECTION, *more), "collection")


def _now() -> list[PanelBuilder]:
    return [
        number(
            "Postgres",
            "The smallest answer of all workers: 1 where Postgres answers each of them.",
            "none",
            f"min({both('livedex_dependency_up', POSTGRES)})",
            limits=Limits(1, 1, low=True),
            texts={"1": ("up", "green"), "0": ("down", "red")},
        ),
        number("Documents", "Visible ones, of the chosen collections.", "short", total(_of("livedex_documents"))),
        number("Vectors", "Of the active generations, as samples tell.", "short", total(_of("livedex_vectors"))),
        number(
            "On disk",
            "Tables of vectors and their indexes, without documents and texts.",
            "bytes",
            f"{total(_of('livedex_table_bytes'))} + {total(_of('livedex_index_bytes'))}",
        ),
        number(
            "Lowest recall",
            "Of the ten nearest vectors, the share that the index finds, by the last probe. Below 90 % users miss results.",
            "percentunit",
            f"min({_of('livedex_index_recall')})",
            limits=RECALL,
            decimals=1,
        ),
        number(
            "Indexes not ready",
            "Collections whose searches compare all vectors.",
            "none",
            f"count({_of('livedex_index_ready')} == 0) or 0 * count({_of('livedex_index_ready')})",
            limits=Limits(1, 10),
        ),
    ]


def _indexes() -> list[PanelBuilder]:
    numbered = " or ".join(
        f"{value} * ({_of('livedex_index_state', _state(name))} == 1)" for value, (name, _) in STATES.items()
    )  # each state by its number
    return [
        timeline(
            "Index",
            "None: searches compare all vectors, which is right while a collection is small or being filled. Invalid: a"
            " build failed; it is tried again, and `livedex status` says why.",
            Query(numbered, NAME),
            STATES,
            width=8,
        ),
        graph(
            "Recall",
            "Share of the ten nearest vectors that the index finds. It falls while many rows change; the upkeep rebuilds"
            " the index where it fell.",
            "percentunit",
            Query(_of("livedex_index_recall"), NAME),
            most=1,
            limits=RECALL,
        ),
        graph(
            "Vectors of no document",
            "Share of them. Searches step over them; above 20 % the oldest are collected before their grace is over.",
            "percentunit",
            Query(_of("livedex_unmapped_share"), NAME),
            limits=Limits(0.2, 0.3),
        ),
        graph(
            "Active generation",
            "The number of the generation that is searched. It changes at a switch or a rollback.",
            "none",
            Query(_of("livedex_active_generation"), NAME),
            steps=True,
        ),
        graph(
            "Building",
            "Share of the documents that a generation has which is being built. It stands still while its model is not"
            " there, or no worker runs.",
            "percentunit",
            Query(
                highest(both("livedex_generation_built_ratio", IN_COLLECTION), "collection", "generation"),
                "{{collection}} generation {{generation}}",
            ),
            most=1,
        ),
        graph(
            "Bytes of a vector",
            "Table and index, for each vector. Much more than usual: dead rows, which the upkeep vacuums unless"
            " an old transaction keeps them.",
            "bytes",
            Query(f"({_of('livedex_table_bytes')} + {_of('livedex_index_bytes')}) / ({_of('livedex_vectors')} > 0)", NAME),
        ),
    ]


def _state(name: str) -> str:
    return f'state="{name}"'


def _sizes() -> list[PanelBuilder]:
    return [
        graph("Documents", "Visible ones.", "short", Query(_of("livedex_documents"), NAME)),
        graph("Vectors", "Of the active generation, as a sample tells.", "short", Query(_of("livedex_vectors"), NAME)),
        graph(
            "Bytes",
            "Of the vectors' tables and of their indexes. The index should fit into memory: where it does not, searches"
            " read from disk.",
            "bytes",
            Query(_of("livedex_table_bytes"), f"{NAME} table"),
            Query(_of("livedex_index_bytes"), f"{NAME} index"),
        ),
    ]


def _writing() -> list[PanelBuilder]:
    return [
        graph(
            "Staging rows",
            "Chunks and vectors of a batch are inserted ahead, on several connections. An index makes that slower:"
            " some 2 ms a vector.",
            "s",
            *_times("stage"),
        ),
        graph(
            "Applying",
            "The short transaction that makes a batch visible. It waits where another session locks.",
            "s",
            *_times("apply"),
        ),
        graph(
            "Begun again",
            "After conflicts, dropped connections and outages, by worker.",
            "ops",
            Query(f"{rates(both('livedex_retries_total', POSTGRES), 'instance')} or 0 * {_WORKERS}"),
        ),
    ]


def _connections() -> list[PanelBuilder]:
    asked, waited = both("livedex_pool_requests_total"), both("livedex_pool_wait_seconds_total")
    return [
        graph(
            "Connections",
            "Of all workers, by pool. All used for long: searches or batches wait for their turn.",
            "none",
            Query(total(both("livedex_pool_connections"), "pool", "state"), "{{pool}} {{state}}"),
            stacked=True,
        ),
        graph(
            "Waiting for a connection",
            "Of all workers, by pool. It should be 0 almost always.",
            "none",
            Query(total(both("livedex_pool_waiting"), "pool"), "{{pool}}"),
            limits=Limits(1, 10),
        ),
        graph(
            "Time until a connection",
            "Mean of the requests, by pool.",
            "s",
            Query(f"{rates(waited, 'pool')} / ({rates(asked, 'pool')} > 0)", "{{pool}}"),
            limits=Limits(0.05, 0.5),
        ),
        graph("Requests for connections", "By pool.", "reqps", Query(rates(asked, "pool"), "{{pool}}")),
        graph(
            "Failures of pools",
            "Connections that could not be made, and requests that gave up, by pool.",
            "ops",
            Query(rates(both("livedex_pool_errors_total"), "pool"), "{{pool}}"),
            limits=Limits(0.01, 0.1),
        ),
        graph(
            "Postgres",
            "1 where it answers, by worker.",
            "none",
            Query(both("livedex_dependency_up", POSTGRES)),
            most=1,
            steps=True,
            limits=Limits(1, 1, low=True),
        ),
    ]


def _times(stage: str) -> tuple[Query, Query]:
    buckets = both("livedex_stage_seconds_bucket", f'stage="{stage}"')
    return Query(quantile(0.5, buckets), "half"), Query(quantile(0.99, buckets), "99 %")


_WORKERS = total(both("livedex_dependency_up", POSTGRES), "instance")
