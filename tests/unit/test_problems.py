"""Which status tells an error of Postgres."""

import json
from typing import Any

import pytest
from psycopg import errors

from livedex.database import translated
from livedex.encoders.remote import InputRefusedError
from livedex.errors import UnavailableError
from livedex.lifecycle import Health
from livedex.observe import QueryMetrics
from livedex.query.problems import Problems


@pytest.fixture
def problems() -> Problems:
    """Of a worker whose dependencies are up."""
    return Problems(Health(QueryMetrics().dependency_up, "postgres", "embedder"))


def told(problems: Problems, error: Exception) -> dict[str, Any]:
    """The problem document."""
    answer = problems.of(error)
    body: dict[str, Any] = json.loads(bytes(answer.body))
    assert body["status"] == answer.status_code
    return {**body, "retry": answer.headers.get("retry-after")}


@pytest.mark.parametrize(
    ("state", "status"),
    [("54000", 400), ("54001", 400), ("54023", 400), ("22003", 400), ("42704", 404), ("57014", 504), ("XX000", 500)],
)
def test_what_the_caller_can_mend_is_no_fault_of_livedex(problems: Problems, state: str, status: int) -> None:
    """A text beyond a limit is a bad request, as a value is that cannot be taken."""
    assert told(problems, errors.lookup(state)("so it is"))["status"] == status


@pytest.mark.parametrize("state", ["53000", "53100", "53200", "53300", "53400"])
def test_what_the_server_has_too_little_of_is_asked_for_again(problems: Problems, state: str) -> None:
    """Memory, room, connections, and texts that wait: 503 that names Postgres and says when."""
    with pytest.raises(UnavailableError) as caught, translated():
        raise errors.lookup(state)("too many texts wait")
    found = told(problems, caught.value)
    assert (found["status"], found["dependency"], found["retry"]) == (503, "postgres", "1")
    assert "too many texts wait" in found["detail"]


@pytest.mark.parametrize(("state", "status", "away"), [("54001", 400, False), ("53200", 503, False), ("57P01", 503, True)])
def test_what_one_search_is_too_much_for_is_no_outage(problems: Problems, state: str, status: int, *, away: bool) -> None:
    """Also where it reaches this place as what Postgres does not take for now: other searches may need less."""
    for dependency in ("postgres", "embedder"):
        problems._health.up(dependency)
    with pytest.raises(UnavailableError) as caught, translated():
        raise errors.lookup(state)("it has no room")
    assert told(problems, caught.value)["status"] == status
    assert problems._health.waiting_for == (["postgres"] if away else [])


def test_a_text_that_the_embedding_server_refuses_is_a_bad_request(problems: Problems) -> None:
    """And what the server said, which names its address, is not passed on."""
    found = told(problems, InputRefusedError("the embedding server answers 422 to http://10.0.0.1/embed"))
    assert found["status"] == 400
    assert found["detail"].startswith("query: ")
    assert [each["field"] for each in found["errors"]] == ["query"]
    assert "10.0.0.1" not in found["detail"]
