"""The model on both sides: documents in the index workers, questions in the query workers."""

from livedex_dashboards.frame import COLLECTION, SERVER, WORKER, Board, Section
from livedex_dashboards.panels import NONE, Limits, PanelBuilder, Query, graph, heat, number
from livedex_dashboards.queries import COLLECTION as IN_COLLECTION
from livedex_dashboards.queries import both, highest, index, quantile, rate, rates, ratio, serve, total

EMBEDDER = 'dependency="embedder"'
EMBEDDED = index("livedex_chunks_total", IN_COLLECTION, 'outcome="embedded"')
SPENT = index("livedex_stage_seconds_sum", 'stage="embed"')
DOCUMENTS = index("livedex_stage_seconds_bucket", 'stage="embed"')
QUESTIONS = serve("livedex_search_stage_seconds_bucket", 'stage="embed"')
LAG = index("livedex_embedding_lag_seconds_bucket", IN_COLLECTION)
CACHE = serve("livedex_query_cache_total")


def board() -> Board:
    """The dashboard."""
    return Board(
        name="encoder",
        title="Encoder",
        description="The embedding model: its speed, what is spared it, and whether it is the bottleneck.",
        variables=(WORKER, SERVER, COLLECTION),
        sections=(
            Section("Now", _now()),
            Section("Documents", _documents()),
            Section("Questions", _questions()),
        ),
    )


def _now() -> list[PanelBuilder]:
    failed = highest(index("livedex_dead_letters_open", 'reason="embedding-failed"'))
    return [
        number(
            "Encoder",
            "The smallest answer of all workers: 1 where each has its model.",
            "none",
            f"min({both('livedex_dependency_up', EMBEDDER)})",
            limits=Limits(1, 1, low=True),
            texts={"1": ("up", "green"), "0": ("down", "red")},
        ),
        number("Chunks embedded", "Of documents.", "ops", rates(EMBEDDED), decimals=1),
        number(
            "Time of a chunk",
            "Mean in the time shown, batching included. Twice as much as usual: look at the processors, or at"
            " the embedding server.",
            "s",
            _in_range(SPENT, EMBEDDED),
        ),
        number(
            "Texts that failed", "Dead letters that the model could not embed, and that are open.", "none", failed, limits=NONE
        ),
        number(
            "Questions kept",
            "Share of the questions whose vector was there already, in the time shown.",
            "percentunit",
            f"sum(increase({serve('livedex_query_cache_total', _HIT)}[$__range])) / sum(increase({CACHE}[$__range]))",
            decimals=0,
        ),
        number(
            "Models",
            "Different models and versions that run. More than one: an upgrade or a change of models is under way.",
            "none",
            f"count(group by (model, version) ({both('livedex_build_info')}))",
        ),
    ]


def _documents() -> list[PanelBuilder]:
    return [
        graph("Chunks embedded", "By worker.", "ops", Query(rates(EMBEDDED, "instance")), stacked=True),
        graph(
            "Time of a chunk",
            "Mean, by worker: seconds in the stage `embed` for each embedded chunk.",
            "s",
            Query(f"{rates(SPENT, 'instance')} / {rates(EMBEDDED, 'instance')}"),
        ),
        graph(
            "Share of the time in the model",
            "Of a worker's time. Near 100 % the encoder is the bottleneck: more workers, a"
            " faster encoder, or an embedding server.",
            "percentunit",
            Query(rates(SPENT, "instance")),
            limits=Limits(0.8, 0.95),
        ),
        graph(
            "Time of a batch",
            "In the stage `embed`.",
            "s",
            Query(quantile(0.5, DOCUMENTS), "half"),
            Query(quantile(0.99, DOCUMENTS), "99 %", exemplars=True),
        ),
        heat("From polled to embedded", "What records wait for their vectors.", "s", rates(LAG, "le"), width=8),
        graph(
            "Embedded and reused",
            "Share of the chunks whose vector was there already. A reuse near 0 with ordinary edits: chunk"
            " boundaries move, or the title is part of what the model reads and changes.",
            "percentunit",
            Query(
                ratio(
                    rates(index("livedex_chunks_total", IN_COLLECTION, 'outcome="reused"'), "collection"),
                    rates(index("livedex_chunks_total", IN_COLLECTION), "collection"),
                ),
                "{{collection}}",
            ),
            most=1,
        ),
    ]


def _questions() -> list[PanelBuilder]:
    return [
        graph(
            "Time to embed a question",
            "In the query workers, waiting for its turn included.",
            "s",
            Query(quantile(0.5, QUESTIONS), "half"),
            Query(quantile(0.99, QUESTIONS), "99 %", exemplars=True),
            limits=Limits(0.25, 0.5),
        ),
        graph(
            "Questions kept",
            "Whether the vector of a question was there already.",
            "ops",
            Query(rates(CACHE, "outcome"), "{{outcome}}"),
            stacked=True,
            colours={"hit": "green", "miss": "purple"},
        ),
        graph(
            "The encoder's failures",
            "Work that was begun again since the model or its server failed.",
            "ops",
            Query(f"{rates(index('livedex_retries_total', EMBEDDER), 'instance')} or 0 * {_WORKERS}"),
        ),
        graph(
            "Encoders",
            "1 where a worker has its model, by worker.",
            "none",
            Query(both("livedex_dependency_up", EMBEDDER)),
            most=1,
            steps=True,
            limits=Limits(1, 1, low=True),
        ),
        graph("Processor of index workers", "Cores used.", "none", Query(rate(index("process_cpu_seconds_total")))),
        graph("Processor of query workers", "Cores used.", "none", Query(rate(serve("process_cpu_seconds_total")))),
    ]


def _in_range(part: str, whole: str) -> str:
    return f"sum(increase({part}[$__range])) / sum(increase({whole}[$__range]))"


_HIT = 'outcome="hit"'
_WORKERS = total(index("livedex_dependency_up", EMBEDDER), "instance")
