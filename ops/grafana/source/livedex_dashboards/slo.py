"""Service levels: whether users are served, and what is left of what may fail."""

from livedex_dashboards import objectives as slo
from livedex_dashboards.frame import COLLECTION, TOPIC, Board, Section
from livedex_dashboards.panels import NONE, Limits, PanelBuilder, Query, graph, heat, number
from livedex_dashboards.queries import COLLECTION as IN_COLLECTION
from livedex_dashboards.queries import RANGE, both, highest, quantile, rates, ratio, total, unfound, within
from livedex_dashboards.queries import TOPIC as OF_TOPIC

FRESHNESS = both("livedex_freshness_seconds", IN_COLLECTION)
FRESHNESS_BUCKETS = both("livedex_freshness_seconds_bucket", IN_COLLECTION)
SEARCHES = both("livedex_search_seconds")
SEARCH_BUCKETS = both("livedex_search_seconds_bucket")
ALL_REQUESTS = both("livedex_search_requests_total")
FAILED_REQUESTS = both("livedex_search_requests_total", slo.FAULTS)
STALE = Limits(slo.STALE_AFTER / 5, slo.STALE_AFTER)
BURN = Limits(1, slo.SLOW_BURN)
WINDOWS = ("5m", "30m", "1h", "6h", "3d")  # of the rules


def board() -> Board:
    """The dashboard."""
    return Board(
        name="slo",
        title="Service levels",
        description="Are users served: fresh, fast and without errors; and what is left of what may fail.",
        variables=(COLLECTION, TOPIC),
        sections=(
            Section("In the time shown", _kept()),
            Section("Now", _now()),
            Section("Freshness", _freshness()),
            Section("Search", _search()),
        ),
    )


def _kept() -> list[PanelBuilder]:
    fresh = within(FRESHNESS, slo.FRESH_WITHIN, RANGE)
    fast = within(SEARCHES, slo.FAST_WITHIN, RANGE)
    answered = f"1 - {_failed(RANGE)}"
    return [
        _share(
            "Fresh", f"Share of the accepted events that were searchable within {slo.FRESH_WITHIN} s", fresh, slo.FRESH_SHARE
        ),
        _budget("Budget: fresh", fresh, slo.FRESH_SHARE),
        _share("Fast", f"Share of the searches that took at most {slo.FAST_WITHIN} s", fast, slo.FAST_SHARE),
        _budget("Budget: fast", fast, slo.FAST_SHARE),
        _share("Answered", "Share of the searches that did not fail by our fault", answered, slo.ANSWERED_SHARE),
        _budget("Budget: answered", answered, slo.ANSWERED_SHARE),
    ]


def _share(title: str, what: str, query: str, objective: float) -> PanelBuilder:
    text = f"{what}, in the time shown. The objective is {objective:.1%}; orange: half of what may fail is used."
    return number(title, text, "percentunit", query, limits=Limits((1 + objective) / 2, objective, low=True), decimals=2)


def _budget(title: str, good: str, objective: float) -> PanelBuilder:
    text = (
        f"What is left of the {1 - objective:.1%} that may fail in the time shown; below 0 the objective of {objective:.1%} is"
        " missed. Nothing is shown while there was nothing to judge."
    )
    query = f"1 - (1 - {_bracketed(good)}) / (1 - {objective})"
    return number(title, text, "percentunit", query, limits=Limits(0.5, 0, low=True), decimals=0)


def _now() -> list[PanelBuilder]:
    stale = highest(both("livedex_staleness_seconds", OF_TOPIC))
    letters = total(highest(both("livedex_dead_letters_open"), "reason"))
    down = f"count({both('livedex_dependency_up')} == 0) or 0 * count({both('livedex_dependency_up')})"
    old = highest(unfound())
    return [
        number(
            "Alerts",
            "That fire; each has a runbook, see above.",
            "none",
            'count(ALERTS{alertname=~"Livedex.+",alertstate="firing"}) or vector(0)',
            limits=NONE,
            width=3,
        ),
        number(
            "Workers not answering",
            "Of those that were scraped in the time shown.",
            "none",
            f"count({both('up')} == 0) or 0 * count({both('up')})",
            limits=NONE,
            width=3,
        ),
        number(
            "Staleness",
            "Age of the oldest event that is not applied, in the worst partition; 0 when all is caught up. It rises in a"
            " stall, even when no event arrives at its end.",
            "s",
            stale,
            limits=STALE,
            width=3,
        ),
        number(
            "Dead letters",
            "Records that could not be indexed and wait for somebody. Their documents keep their former text.",
            "none",
            letters,
            limits=NONE,
            width=3,
        ),
        number(
            "Dependencies down",
            "Of all workers: Kafka, Postgres and the embedder, each counted where it does not answer.",
            "none",
            down,
            limits=NONE,
            width=3,
        ),
        number(
            "Events",
            "Accepted, superseded, refused as stale, and dead letters: each event once.",
            "eps",
            rates(both("livedex_events_total", IN_COLLECTION)),
            decimals=1,
            width=3,
        ),
        number("Searches", "Over HTTP and SQL.", "reqps", rates(ALL_REQUESTS), decimals=1, width=3),
        number(
            "Last canary found",
            "How long ago the canary's document was last found by a search, of the topic where that is longest. It publishes"
            " every 30 s, in one topic after the other.",
            "s",
            old,
            limits=Limits(60, 300),
            width=3,
        ),
    ]


def _freshness() -> list[PanelBuilder]:
    limit = float(slo.FRESH_WITHIN)
    by_topic = highest(both("livedex_staleness_seconds", OF_TOPIC), "topic", "partition")
    return [
        graph(
            "From event to searchable",
            "Freshness of the events that were accepted. The dashed line is the objective: 99 of 100"
            " must lie below it. Look at Pipeline for the stage that is slow, and at Kafka for lag.",
            "s",
            *(Query(quantile(share, FRESHNESS_BUCKETS), name, exemplars=share == 0.99) for share, name in _SHARES),
            limits=Limits(limit, limit),
        ),
        heat(
            "Freshness of all events",
            "How many events became searchable in which time. Two bands mean two kinds of load, for"
            " example a backfill beside live edits.",
            "s",
            rates(FRESHNESS_BUCKETS, "le"),
            width=8,
        ),
        graph(
            "Burn rate: freshness",
            "How fast the budget is used: at 1 it lasts just as long as its period, at 14.4 (in 5 minutes"
            " and an hour) or 6 (in 30 minutes and 6 hours) somebody is paged.",
            "none",
            *_burn("freshness_late", slo.FRESH_SHARE, IN_COLLECTION),
            limits=BURN,
        ),
        graph(
            "Staleness",
            "Age of the oldest event that is not applied, by partition. A single partition that rises is blocked or"
            " hot; all of them: a dependency or the workers.",
            "s",
            Query(by_topic, "{{topic}} / {{partition}}"),
            limits=STALE,
            width=12,
        ),
        graph(
            "Freshness by kind of event",
            "99 of 100 events are searchable within this time. Deletes and metadata embed nothing,"
            " so they are faster than upserts.",
            "s",
            Query(quantile(0.99, FRESHNESS_BUCKETS, "collection", "op"), "{{collection}} {{op}}"),
            width=12,
        ),
    ]


def _search() -> list[PanelBuilder]:
    limit = float(slo.FAST_WITHIN)
    return [
        graph(
            "Time of a search",
            "Whole searches over HTTP, and texts embedded for SQL. The dashed line is the objective: 99 of 100"
            " must lie below it. Look at Search for the stage that is slow.",
            "s",
            *(
                Query(quantile(share, SEARCH_BUCKETS, "route"), f"{{{{route}}}} {name}", exemplars=share == 0.99)
                for share, name in _SHARES
            ),
            limits=Limits(limit, limit),
        ),
        heat(
            "Time of all searches",
            "How many took how long, on both routes.",
            "s",
            rates(SEARCH_BUCKETS, "le"),
            width=8,
        ),
        graph(
            "Searches that failed",
            "Share by route, refused because of load, too late, or failed; without what the asker did wrong.",
            "percentunit",
            Query(ratio(rates(FAILED_REQUESTS, "route"), rates(ALL_REQUESTS, "route")), "{{route}}"),
            limits=Limits(1 - slo.ANSWERED_SHARE, 1 - slo.ANSWERED_SHARE),
        ),
        graph(
            "Burn rate: slow searches",
            "How fast the budget of searches that may be slow is used, on the route that is worst.",
            "none",
            *_burn("search_slow", slo.FAST_SHARE),
            limits=BURN,
            width=12,
        ),
        graph(
            "Burn rate: failed searches",
            "How fast the budget of searches that may fail is used, on the route that is worst.",
            "none",
            *_burn("search_failed", slo.ANSWERED_SHARE),
            limits=BURN,
            width=12,
        ),
    ]


def _burn(rule: str, objective: float, *more: str) -> list[Query]:
    allowed = f"(1 - {objective})"
    windows = ((window, both(f"livedex:{rule}:ratio_rate{window}", *more)) for window in WINDOWS)
    return [Query(f"{highest(recorded)} / {allowed}", window) for window, recorded in windows]


def _failed(window: str) -> str:
    return ratio(total(f"increase({FAILED_REQUESTS}[{window}])"), total(f"increase({ALL_REQUESTS}[{window}])"))


def _bracketed(expression: str) -> str:
    return f"({expression})"


_SHARES = ((0.5, "half"), (0.9, "90 %"), (0.99, "99 %"))
