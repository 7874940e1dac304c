"""`explain` over HTTP: why each row was found."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from psycopg.errors import QueryCanceled

from livedex.database import Connection
from livedex.dev.stack import Addresses
from livedex.query import explaining
from support.served import TEXTS, Served, serving


@pytest.fixture(scope="module")
def served(stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A query worker with three documents."""
    with serving(stack, template, tmp_path_factory.mktemp("http")) as worker:
        yield worker


def whys(served: Served, **body: object) -> dict[str, dict[str, object] | None]:
    """What is said of each document that is found."""
    answer = served.ask(**{"query": TEXTS["clocks"], "explain": True, **body})
    assert answer.status_code == 200, answer.text
    return {row["document_id"]: row["why"] for row in answer.json()["results"]}


def places(served: Served, mode: str) -> dict[str, int]:
    """The places of the documents in an answer of this mode."""
    rows = served.ask(query=TEXTS["clocks"], mode=mode).json()["results"]
    return {row["document_id"]: place for place, row in enumerate(rows, 1)}


def test_a_row_says_its_place_in_each_leg(served: Served) -> None:
    """They are those of searches by meaning and by words alone; a document that has none of the words has no place there."""
    found = whys(served)
    assert {name: why and why["vector"] for name, why in found.items()} == places(served, "vector")
    assert {name: why["text"] for name, why in found.items() if why and why["text"]} == places(served, "text")
    assert found["clocks"] == {"vector": 1, "text": 1, "words": ["Clocks", "tell", "time"], "depth": 50}
    assert found["bridges"] is not None
    assert (found["bridges"]["text"], found["bridges"]["words"]) == (None, [])


def test_a_leg_that_the_mode_does_not_ask_gives_no_place(served: Served) -> None:
    """Null for the other leg, in each mode; the words are told in all of them."""
    for mode, other in (("vector", "text"), ("text", "vector")):
        why = whys(served, mode=mode)["clocks"]
        assert why is not None
        assert (why[mode], why[other], why["words"]) == (1, None, ["Clocks", "tell", "time"])


def test_words_are_those_of_the_text_configuration(served: Served) -> None:
    """Another form of a word is the same word, and what the configuration leaves out is none."""
    why = whys(served, query="the clock of times")["clocks"]
    assert why is not None
    assert why["words"] == ["Clocks", "time"]


def test_places_are_those_among_what_the_filter_lets_pass(served: Served) -> None:
    """A filter that leaves one document makes it the first in both legs."""
    found = whys(served, query=TEXTS["apples"] + " " + TEXTS["clocks"], filter={"initial": "c"})
    assert found.keys() == {"clocks"}
    assert found["clocks"] is not None
    assert (found["clocks"]["vector"], found["clocks"]["text"]) == (1, 1)


def test_without_it_nothing_is_said(served: Served) -> None:
    """The answer has the fields that it always had; in a batch each search decides for itself, and by address it is a field."""
    assert "why" not in served.ask(query="clocks").json()["results"][0]
    batch = served.ask_all({"query": "clocks"}, {"query": "clocks", "explain": True}).json()["results"]
    assert ["why" in each["results"][0] for each in batch] == [False, True]
    by_address = served.client.get("/v1/search", params={"q": "clocks", "explain": "true"})
    assert by_address.json()["results"][0]["why"]["text"] == 1


def test_a_search_is_answered_when_there_is_no_time_to_explain_it(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows say null: too late before it began, or while it was under way."""
    monkeypatch.setattr(explaining, "LEAST_TIME", 100.0)
    assert list(whys(served).values()) == [None, None, None]
    monkeypatch.undo()
    assert None not in whys(served).values()

    def slow(*_: object) -> dict[str, int]:
        raise QueryCanceled

    monkeypatch.setattr(explaining, "_places", slow)
    assert list(whys(served).values()) == [None, None, None]


@pytest.mark.parametrize("state", ["LX001", "22P02"])
def test_rows_that_were_found_are_answered_whatever_explaining_meets(
    served: Served, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """The generation may be dropped between the two, or Postgres refuse a statement: the rows say null."""
    real = explaining._places

    def refused(connection: Connection, *more: Any) -> dict[str, int]:
        connection.execute(f"do $$ begin raise exception 'refused by the test' using errcode = '{state}'; end $$")
        return real(connection, *more)

    monkeypatch.setattr(explaining, "_places", refused)
    assert list(whys(served).values()) == [None, None, None]
    monkeypatch.undo()
    assert None not in whys(served).values(), "the connection is as good as before"


def test_explaining_has_a_bound_of_its_own(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast search is not kept waiting until its timeout by places that are slow to find."""

    def slow(connection: Connection, _: object, leg: str, chosen: Mapping[str, str], deadline: float) -> dict[str, int]:
        del leg
        explaining._begin(connection, chosen, deadline)
        connection.execute("select pg_sleep(30)")
        return {}

    monkeypatch.setattr(explaining, "_places", slow)
    started = time.monotonic()
    assert list(whys(served, timeout_ms=30_000).values()) == [None, None, None]
    assert time.monotonic() - started < 15


def test_the_bound_follows_the_search_and_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice its time, a quarter of a second at least, and never beyond the deadline."""
    monkeypatch.setattr(time, "perf_counter", lambda: 100.0)
    assert explaining.until(0.01, 110.0) == 100.25
    assert explaining.until(2.0, 110.0) == 104.0
    assert explaining.until(2.0, 101.0) == 101.0
