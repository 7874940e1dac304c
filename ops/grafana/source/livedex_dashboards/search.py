"""The query workers: how many searches, how fast, how they end, and where the time goes."""

from livedex_dashboards import objectives as slo
from livedex_dashboards.frame import SERVER, Board, Section
from livedex_dashboards.panels import Limits, PanelBuilder, Query, graph, heat, number
from livedex_dashboards.queries import quantile, rate, rates, ratio, serve, total, within

REQUESTS = serve("livedex_search_requests_total")
FAILED = serve("livedex_search_requests_total", slo.FAULTS)
BUCKETS = serve("livedex_search_seconds_bucket")
STAGES = serve("livedex_search_stage_seconds_bucket")
FAST = float(slo.FAST_WITHIN)
ROUTE = "{{route}}"


def board() -> Board:
    """The dashboard."""
    return Board(
        name="search",
        title="Search",
        description="How many searches the query workers answer, how fast, how they end, and where the time goes.",
        variables=(SERVER,),
        sections=(
            Section("Now", _now()),
            Section("Searches", _searches()),
            Section("Where the time goes", _stages()),
            Section("Processes", _processes()),
        ),
    )


def _now() -> list[PanelBuilder]:
    failed = ratio(rates(FAILED), rates(REQUESTS))
    return [
        number("Workers", "Query workers that are scraped.", "none", f"count({serve('livedex_search_waiting')})"),
        number("Searches", "Over HTTP and SQL, however they ended.", "reqps", rates(REQUESTS), decimals=1),
        number("99 of 100", "Take no longer than this now.", "s", quantile(0.99, BUCKETS), limits=Limits(FAST, 2 * FAST)),
        number(
            "Fast",
            f"Share of the searches that took at most {slo.FAST_WITHIN} s, in the time shown.",
            "percentunit",
            within(serve("livedex_search_seconds"), slo.FAST_WITHIN, "$__range"),
            limits=Limits((1 + slo.FAST_SHARE) / 2, slo.FAST_SHARE, low=True),
            decimals=2,
        ),
        number(
            "Failed",
            "Share of the searches that failed by our fault.",
            "percentunit",
            failed,
            limits=Limits(1 - slo.ANSWERED_SHARE, 0.01),
            decimals=2,
        ),
        number(
            "Waiting",
            "Searches over HTTP that wait for their turn. One more than LIVEDEX_HTTP_QUEUE is refused with 429.",
            "none",
            total(serve("livedex_search_waiting")),
            limits=Limits(32, 100),
        ),
    ]


def _searches() -> list[PanelBuilder]:
    return [
        graph(
            "Searches",
            "By route and answer: HTTP statuses, and SQLSTATEs (00000 is success). 429: more were asked than the queue"
            " holds. 57P03: no model or no database.",
            "reqps",
            Query(rates(REQUESTS, "route", "code"), "{{route}} {{code}}"),
            stacked=True,
        ),
        graph(
            "Failed",
            "Share by route, without what the asker did wrong.",
            "percentunit",
            Query(ratio(rates(FAILED, "route"), rates(REQUESTS, "route")), ROUTE),
            limits=Limits(1 - slo.ANSWERED_SHARE, 0.01),
        ),
        graph(
            "Asked wrongly",
            "Share by route of 4xx without 429, and of SQLSTATEs of wrong arguments. A rise often follows a"
            " deployment of an application.",
            "percentunit",
            Query(ratio(rates(serve("livedex_search_requests_total", _REFUSED), "route"), rates(REQUESTS, "route")), ROUTE),
        ),
        graph(
            "Time of a search",
            "Half, and 99 of 100, take no longer. The dashed line is the objective.",
            "s",
            Query(quantile(0.5, BUCKETS, "route", "mode"), "{{route}} {{mode}} half"),
            Query(quantile(0.99, BUCKETS, "route", "mode"), "{{route}} {{mode}} 99 %", exemplars=True),
            limits=Limits(FAST, FAST),
        ),
        heat("Time of all searches", "How many took how long.", "s", rates(BUCKETS, "le"), width=8),
        graph(
            "By worker",
            "Answers of each query worker. They should be shared evenly.",
            "reqps",
            Query(rates(REQUESTS, "instance")),
            stacked=True,
        ),
    ]


def _stages() -> list[PanelBuilder]:
    spent = rates(serve("livedex_search_stage_seconds_sum"), "stage")
    counted = rates(serve("livedex_search_stage_seconds_count"), "stage")
    cache = serve("livedex_query_cache_total")
    return [
        graph(
            "Slowest of 100",
            "99 of 100 searches need no longer in this stage. Slow `sql`: look at the indexes; slow `embed`: at the encoder.",
            "s",
            Query(quantile(0.99, STAGES, "stage"), "{{stage}}"),
        ),
        graph("Mean", "What a search needs in this stage on average.", "s", Query(f"{spent} / {counted}", "{{stage}}")),
        graph(
            "Where the time goes",
            "Seconds spent in a stage in each second, of all workers.",
            "none",
            Query(spent, "{{stage}}"),
            stacked=True,
        ),
        graph(
            "Questions kept",
            "Share of the questions whose vector was there already: they cost no model.",
            "percentunit",
            Query(ratio(rates(serve("livedex_query_cache_total", 'outcome="hit"')), rates(cache)), "kept"),
            most=1,
        ),
        graph(
            "Waiting",
            "Searches over HTTP that wait for their turn, by worker.",
            "none",
            Query(serve("livedex_search_waiting")),
            limits=Limits(32, 100),
        ),
        graph(
            "Not reranked",
            "Searches answered without the reranking that was asked for: it failed, or the time was up.",
            "reqps",
            Query(rate(serve("livedex_search_degraded_total"))),
            limits=Limits(0.01, 0.1),
        ),
    ]


def _processes() -> list[PanelBuilder]:
    return [
        graph("Processor", "Cores used, by worker.", "none", Query(rate(serve("process_cpu_seconds_total")))),
        graph(
            "Memory", "Resident, by worker. Most of it is the models.", "bytes", Query(serve("process_resident_memory_bytes"))
        ),
        graph(
            "Dependencies",
            "1 where it answers, by worker. While one does not, searches end with 503 or 57P03.",
            "none",
            Query(serve("livedex_dependency_up"), "{{dependency}} {{instance}}"),
            most=1,
            steps=True,
            limits=Limits(1, 1, low=True),
        ),
    ]


_REFUSED = 'code=~"4..|22...|42...|54...|28...|0A...",code!="429"'
