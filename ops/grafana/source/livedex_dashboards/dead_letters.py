"""Dead letters: what could not be indexed, why, and since when; and the other ways in which events change nothing."""

from livedex_dashboards.frame import COLLECTION, WORKER, Board, Section
from livedex_dashboards.panels import NONE, Limits, PanelBuilder, Query, graph, number
from livedex_dashboards.queries import COLLECTION as IN_COLLECTION
from livedex_dashboards.queries import highest, index, rates, ratio, total

OPEN = highest(index("livedex_dead_letters_open"), "reason")
EVENTS = index("livedex_events_total", IN_COLLECTION)
DEAD = index("livedex_events_total", IN_COLLECTION, 'outcome="dead_letter"')
STALE = index("livedex_events_total", IN_COLLECTION, 'outcome="stale"')


def board() -> Board:
    """The dashboard."""
    return Board(
        name="dead-letters",
        title="Dead letters",
        description="What could not be indexed, and why. `livedex dead-letters list` names the records, `replay` tries them.",
        variables=(WORKER, COLLECTION),
        sections=(
            Section("Now", _now()),
            Section("Open", _open()),
            Section("Arriving", _arriving()),
        ),
    )


def _now() -> list[PanelBuilder]:
    mine = 'reason=~"embedding-failed|storing-failed"'
    return [
        number(
            "Open",
            "Dead letters that nobody replayed or discarded. Their documents keep their former text.",
            "none",
            total(OPEN),
            limits=NONE,
            width=6,
        ),
        number(
            "Ours",
            "Open ones whose record is right, but could not be embedded or stored: replay them once that is mended.",
            "none",
            total(highest(index("livedex_dead_letters_open", mine), "reason")),
            limits=NONE,
            width=6,
        ),
        number(
            "In the last hour",
            "Records that became dead letters.",
            "none",
            _or_none(f"sum(increase({DEAD}[1h]))", f"sum(increase({EVENTS}[1h]))"),
            limits=NONE,
            width=6,
            decimals=0,
        ),
        number(
            "Share of the events",
            "That became dead letters, in the time shown. Above 1 % a producer sends what livedex does not take.",
            "percentunit",
            ratio(f"sum(increase({DEAD}[$__range]))", f"sum(increase({EVENTS}[$__range]))"),
            limits=Limits(0.001, 0.01),
            width=6,
            decimals=2,
        ),
    ]


def _or_none(part: str, whole: str) -> str:
    return f"{part} or 0 * {whole}"


def _open() -> list[PanelBuilder]:
    return [
        graph(
            "Open by reason",
            "invalid-*, schema, missing-*, id-mismatch, too-large, nul-character, lone-surrogate, nesting: the"
            " producer's. embedding-failed, storing-failed: ours. unreadable: the log is damaged there.",
            "none",
            Query(f"{OPEN} > 0", "{{reason}}"),
            empty="no open dead letters",
            stacked=True,
            steps=True,
            width=16,
        ),
        graph(
            "Change in an hour",
            "By reason; below 0 they are being replayed or discarded.",
            "none",
            Query(f"delta({OPEN}[1h:]) != 0", "{{reason}}"),
            empty="no change",
            signed=True,
            width=8,
        ),
    ]


def _arriving() -> list[PanelBuilder]:
    return [
        graph(
            "Dead letters",
            "Records that became one, by collection. A burst follows a producer's deployment; a steady trickle is"
            " one kind of document.",
            "eps",
            Query(f"{rates(DEAD, 'collection')} or 0 * {rates(EVENTS, 'collection')}", "{{collection}}"),
            limits=Limits(0.01, 1),
        ),
        graph(
            "Share of the events",
            "By collection.",
            "percentunit",
            Query(ratio(rates(DEAD, "collection"), rates(EVENTS, "collection")), "{{collection}}"),
            limits=Limits(0.001, 0.01),
        ),
        graph(
            "Refused as stale",
            "Share of the events that were older than what is indexed. Ordinary in a replay; otherwise a"
            " producer sends old versions, or several write one document.",
            "percentunit",
            Query(ratio(rates(STALE, "collection"), rates(EVENTS, "collection")), "{{collection}}"),
            limits=Limits(0.1, 0.5),
        ),
    ]
