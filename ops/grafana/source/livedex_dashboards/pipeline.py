"""The index workers' pipeline: what becomes of events, where the time goes, and what the processes need."""

from livedex_dashboards.frame import COLLECTION, WORKER, Board, Section
from livedex_dashboards.panels import BAD, GOOD, WARNING, Limits, PanelBuilder, Query, graph, heat, number
from livedex_dashboards.queries import COLLECTION as IN_COLLECTION
from livedex_dashboards.queries import index, quantile, rate, rates, ratio, total

EVENTS = index("livedex_events_total", IN_COLLECTION)
STAGE_BUCKETS = index("livedex_stage_seconds_bucket")
OUTCOMES = {"applied": GOOD, "unchanged": "light-green", "superseded": "blue", "stale": WARNING, "dead_letter": BAD}


def board() -> Board:
    """The dashboard."""
    return Board(
        name="pipeline",
        title="Pipeline stages",
        description="What becomes of events in the index workers, and in which stage the time goes.",
        variables=(WORKER, COLLECTION),
        sections=(
            Section("Now", _now()),
            Section("Events", _events()),
            Section("Stages", _stages()),
            Section("Trouble", _trouble()),
            Section("Processes", _processes()),
        ),
    )


def _now() -> list[PanelBuilder]:
    chunks = index("livedex_chunks_total", IN_COLLECTION)
    reused = index("livedex_chunks_total", IN_COLLECTION, 'outcome="reused"')
    return [
        number("Workers", "Index workers that are scraped.", "none", f"count({index('livedex_inflight_bytes')})"),
        number("Events", "Each event once, whatever became of it.", "eps", rates(EVENTS), decimals=1),
        number(
            "Chunks embedded",
            "Texts that went through the model.",
            "ops",
            rates(index("livedex_chunks_total", IN_COLLECTION, 'outcome="embedded"')),
            decimals=1,
        ),
        number(
            "Chunks reused",
            "Share of the chunks that were there already, in the time shown: an edit embeds only what changed.",
            "percentunit",
            f"sum(increase({reused}[$__range])) / sum(increase({chunks}[$__range]))",
            decimals=0,
        ),
        number(
            "In flight",
            "Bytes of records that were polled and are not applied. Workers stop reading partitions before it"
            " grows beyond their limits.",
            "bytes",
            total(index("livedex_inflight_bytes")),
        ),
        number(
            "Paused partitions",
            "Not read at the moment: a dependency is waited for, or too much is in flight.",
            "none",
            total(index("livedex_paused_partitions")),
            limits=Limits(1, 10),
        ),
    ]


def _events() -> list[PanelBuilder]:
    return [
        graph(
            "Events by outcome",
            "Each event once. Stale: an older version was refused. Superseded: a newer one came in the same"
            " batch. Dead letters want somebody's attention.",
            "eps",
            Query(rates(EVENTS, "outcome"), "{{outcome}}"),
            stacked=True,
            colours=OUTCOMES,
        ),
        graph(
            "Events by collection",
            "Where the load comes from.",
            "eps",
            Query(rates(EVENTS, "collection"), "{{collection}}"),
            stacked=True,
        ),
        graph(
            "Chunks",
            "Embedded chunks cost the model's time; reused ones were found by their content. A change of the chunking"
            " or a new generation embeds everything once.",
            "ops",
            Query(rates(index("livedex_chunks_total", IN_COLLECTION), "outcome"), "{{outcome}}"),
            stacked=True,
            colours={"embedded": "purple", "reused": GOOD},
        ),
    ]


def _stages() -> list[PanelBuilder]:
    spent = rates(index("livedex_stage_seconds_sum"), "stage")
    batches = rates(index("livedex_stage_seconds_count"), "stage")
    return [
        graph(
            "Where the time goes",
            "Seconds spent in a stage in each second, of all workers. A stage near the number of workers is"
            " the bottleneck (poll: they have nothing to do).",
            "none",
            Query(spent, "{{stage}}"),
            stacked=True,
        ),
        graph(
            "Time of a batch",
            "99 of 100 batches need no longer in this stage.",
            "s",
            Query(quantile(0.99, STAGE_BUCKETS, "stage"), "{{stage}}"),
        ),
        graph(
            "Mean time of a batch",
            "What a batch needs in this stage on average.",
            "s",
            Query(f"{spent} / {batches}", "{{stage}}"),
        ),
        graph(
            "Batches",
            "How many go through each stage. Many small ones: little load, or one partition at a time.",
            "ops",
            Query(batches, "{{stage}}"),
        ),
        heat(
            "Apply",
            "The transaction that makes a batch visible. It is short; where it is not, something else locks or Postgres"
            " is busy.",
            "s",
            rates(index("livedex_stage_seconds_bucket", 'stage="apply"'), "le"),
            width=8,
        ),
        graph(
            "From polled to embedded",
            "What a record waits for its vectors: queues before the model, and the model.",
            "s",
            Query(quantile(0.5, _LAG), "half"),
            Query(quantile(0.99, _LAG), "99 %", exemplars=True),
        ),
    ]


def _trouble() -> list[PanelBuilder]:
    skew = index("livedex_clock_skew_total")
    return [
        graph(
            "Begun again",
            "Work that failed and was begun again, by the dependency at fault. A few at a restart are ordinary.",
            "ops",
            Query(rates(index("livedex_retries_total"), "dependency"), "{{dependency}}"),
            empty="nothing was begun again",
        ),
        graph(
            "Dependencies",
            "1 where it answers, by worker. While one does not, the worker waits, and staleness rises.",
            "none",
            Query(index("livedex_dependency_up"), "{{dependency}} {{instance}}"),
            most=1,
            steps=True,
            limits=Limits(1, 1, low=True),
        ),
        graph(
            "Paused partitions",
            "By what is waited for. Reading goes on by itself.",
            "none",
            Query(total(index("livedex_paused_partitions"), "reason"), "{{reason}}"),
            stacked=True,
            steps=True,
        ),
        graph(
            "Bytes in flight",
            "Polled and not applied, by worker. It stays below the worker's limit, however large documents are.",
            "bytes",
            Query(index("livedex_inflight_bytes")),
        ),
        graph(
            "Refused by the owner fence",
            "Batches of a partition that another worker had taken over: nothing was written. A few at"
            " a rebalance are ordinary; a steady rate means that workers fight.",
            "ops",
            Query(rate(index("livedex_fenced_total"))),
            limits=Limits(0.1, 1),
        ),
        graph(
            "Wrong clocks",
            "Share of the events that were searchable more than a second before their time: a producer's clock or"
            " the worker's is wrong.",
            "percentunit",
            Query(ratio(rates(skew), rates(EVENTS)), "of the events"),
            limits=Limits(0.001, 0.01),
        ),
    ]


def _processes() -> list[PanelBuilder]:
    return [
        graph(
            "Processor",
            "Cores used. The model takes most of it; at the machine's number of cores more workers need more machines.",
            "none",
            Query(rate(index("process_cpu_seconds_total"))),
        ),
        graph(
            "Memory",
            "Resident. It depends on the model and the bytes in flight, not on the number of documents.",
            "bytes",
            Query(index("process_resident_memory_bytes")),
        ),
        graph(
            "Open files",
            "Against the limit of the process.",
            "percentunit",
            Query(f"{index('process_open_fds')} / {index('process_max_fds')}"),
            limits=Limits(0.7, 0.9),
            most=1,
        ),
        graph(
            "Time since the start", "It falls to 0 at a restart.", "s", Query(f"time() - {index('process_start_time_seconds')}")
        ),
        graph(
            "Garbage collections",
            "Of the oldest generation. Many of them cost time.",
            "ops",
            Query(rate(index("python_gc_collections_total", 'generation="2"'))),
        ),
        graph(
            "Versions",
            "How many workers run which version and model. Two at a time: an upgrade is under way.",
            "none",
            Query(total(index("livedex_build_info"), "version", "model"), "{{version}} {{model}}"),
            stacked=True,
            steps=True,
        ),
    ]


_LAG = index("livedex_embedding_lag_seconds_bucket", IN_COLLECTION)
