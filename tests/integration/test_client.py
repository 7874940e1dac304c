"""The Python client against a real query worker, and against one that is busy, broken or another program."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from livedex import client
from livedex.client import Hit
from livedex.dev.stack import Addresses
from livedex.errors import ConfigError, LivedexError, TimedOutError, UnavailableError, UsageError
from support.served import TEXTS, TOPIC, Served, serving
from support.synthetic import EPOCH
from support.workers import free_port

TOKEN = "client-0123456789abcdef"
Search = Callable[..., list[Hit]]


@pytest.fixture(scope="module")
def served(stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A query worker that asks for a token."""
    folder = tmp_path_factory.mktemp("http")
    tokens = folder / "tokens.toml"
    tokens.write_text(f'[tokens.client]\ntoken = "{TOKEN}"\ncollections = ["default", "absent"]\n')
    with serving(stack, template, folder, api_tokens_file=tokens) as worker:
        yield worker


def search_in_a_loop(query: str, **more: Any) -> list[Hit]:
    """`asearch`, called as `search` is."""
    return asyncio.run(client.asearch(query, **more))


@pytest.fixture(params=[client.search, search_in_a_loop], ids=["sync", "async"])
def search(request: pytest.FixtureRequest) -> Search:
    """Both entries."""
    made: Search = request.param
    return made


@pytest.fixture
def url(served: Served) -> str:
    """Where the worker is."""
    return str(served.client.base_url)


def test_a_search_gives_typed_rows(search: Search, url: str) -> None:
    """Frozen, with times that have a zone."""
    (hit,) = search(TEXTS["apples"], url=url, token=TOKEN, k=1, mode="vector")
    assert isinstance(hit, Hit)
    assert (hit.document_id, hit.chunk, hit.ordinal, hit.title, hit.version) == ("apples", TEXTS["apples"], 0, None, 0)
    assert hit.score == pytest.approx(1, abs=1e-3)
    assert hit.metadata == {"initial": "a", "n": 0}
    assert hit.event_time == EPOCH
    assert abs((datetime.now(UTC) - hit.indexed_at).total_seconds()) < 3600
    with pytest.raises(AttributeError):
        hit.score = 2  # type: ignore[misc]


def test_every_parameter_is_sent(search: Search, url: str) -> None:
    """What HTTP has, the client has; each with the same meaning."""
    common: dict[str, Any] = {"url": f"{url}/", "token": TOKEN, "timeout": 10}
    assert [hit.document_id for hit in search("x", filter={"initial": "b"}, **common)] == ["bridges"]
    assert search("x", since=datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC), **common) == []
    assert search("x", until=EPOCH, **common) == []
    assert len(search("x", after=f"{TOPIC}:0:9", per_document=2, collection="default", **common)) == 3
    assert search("xylophone", mode="text", **common) == []


WRONG: list[tuple[dict[str, Any], type[LivedexError], str]] = [
    ({"k": 0}, UsageError, "k"),
    ({"mode": "fuzzy"}, UsageError, "mode"),
    ({"since": datetime(2026, 1, 1)}, UsageError, "since"),  # noqa: DTZ001
    ({"query": "\ud800"}, UsageError, "query"),
    ({"query": "x" * 70_000}, UsageError, "65536"),
    ({"rerank": True}, UsageError, "rerank"),
    ({"timeout": 0}, UsageError, "timeout"),
    ({"timeout": 61}, UsageError, "timeout"),
    ({"after": f"{TOPIC}:0:1000", "timeout": 0.2}, TimedOutError, "not searchable|deadline passed"),
    ({"collection": "absent"}, ConfigError, "absent"),
    ({"collection": "secrets"}, ConfigError, "secrets"),
    ({"token": None}, ConfigError, "token"),
    ({"token": f"{TOKEN}x"}, ConfigError, "token"),
]


@pytest.mark.parametrize(("given", "kind", "says"), WRONG, ids=range(len(WRONG)))
def test_errors_are_those_of_the_package(
    search: Search, url: str, given: dict[str, Any], kind: type[LivedexError], says: str
) -> None:
    """With the worker's own words, and never the token."""
    with pytest.raises(kind, match=says) as caught:
        search(**{"query": "x", "url": url, "token": TOKEN, **given})
    assert TOKEN not in str(caught.value)


def test_what_does_not_answer_is_unavailable(search: Search) -> None:
    """With its address; an address that is none is the caller's mistake."""
    with pytest.raises(UnavailableError, match="no query worker answers at"):
        search("x", url=f"http://127.0.0.1:{free_port()}")
    for wrong in ("127.0.0.1:8080", "", "ftp://127.0.0.1", "http://127.0.0.1:x"):
        with pytest.raises(UsageError, match="url"):
            search("x", url=wrong)


Answer = tuple[int, dict[str, str], bytes]
BUSY: Answer = (429, {"Retry-After": "0"}, b'{"status": 429, "detail": "busy"}')
AWAY: Answer = (503, {"Retry-After": "0"}, b'{"status": 503, "detail": "away", "dependency": "postgres"}')
FOUND: Answer = (200, {}, b'{"results": []}')


@contextmanager
def scripted(*answers: Answer) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives these answers in turn, the last one for ever; what it was asked."""
    script, asked = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers["content-length"])))
            status, headers, body = script.pop(0) if len(script) > 1 else script[0]
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def dripping(head: bytes) -> Iterator[str]:
    """A server that sends this at once, and then a byte at a time for as long as somebody reads."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.wfile.write(head)
            with suppress(OSError):
                while not over.wait(0.02):
                    self.wfile.write(b"x")

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            over.set()
            server.shutdown()
            thread.join()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n"


@pytest.mark.parametrize(
    ("entry", "head"),
    [(client.search, HEAD + b"\r\n"), (search_in_a_loop, HEAD + b"\r\n"), (search_in_a_loop, HEAD + b"X-Endless: ")],
    ids=["sync", "async", "async header"],
)
def test_an_answer_that_drips_is_too_late(entry: Search, head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout is for the whole of it, not for each piece."""
    monkeypatch.setattr(client, "GRACE", 0.1)
    began = time.monotonic()
    with dripping(head) as url, pytest.raises(TimedOutError, match=r"did not answer within 0\.3 s"):
        entry("x", url=url, timeout=0.3)
    assert time.monotonic() - began < 10, "the drip would last for half an hour"


def test_a_busy_worker_is_asked_again(search: Search) -> None:
    """After 429 and 503, as Retry-After says; each time with the time that is left."""
    slow = {"Retry-After": "1"}
    with scripted(BUSY, AWAY, (429, slow, BUSY[2]), FOUND) as (url, asked):
        started = time.monotonic()
        assert search("x", url=url, timeout=10) == []
        assert time.monotonic() - started >= 1
    left = [int(body.partition(b'"timeout_ms": ')[2].rstrip(b"}")) for body in asked]
    assert len(left) == 4
    assert left[0] <= 10_000
    assert left[3] <= left[2] - 1000


def test_patience_ends_with_the_timeout(search: Search) -> None:
    """A pause that would end too late is not made: the worker's error comes at once."""
    for (status, _, body), dependency in ((BUSY, "serve"), (AWAY, "postgres")):
        with scripted((status, {"Retry-After": "5"}, body)) as (url, asked):
            started = time.monotonic()
            with pytest.raises(UnavailableError, match=r"busy|away") as caught:
                search("x", url=url, timeout=2)
            assert time.monotonic() - started < 2
            assert (caught.value.dependency, len(asked)) == (dependency, 1)


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, b"hello"),
        (200, {}, b"[]"),
        (200, {}, b'{"results": [{}]}'),
        (404, {}, b"<html>"),
        (307, {"Location": "/elsewhere"}, b""),
    ],
)
def test_another_program_is_told_as_such(search: Search, answer: Answer) -> None:
    """Whatever it answers; a redirect is not followed, since the token would go along."""
    with scripted(answer) as (url, asked), pytest.raises(ConfigError, match="no query worker"):
        search("x", url=url, token=TOKEN)
    assert len(asked) == 1


def test_connections_can_be_kept(url: str) -> None:
    """By a client of httpx that the caller has."""
    with httpx.Client(trust_env=False) as http:
        for _ in range(3):
            assert client.search("x", url=url, token=TOKEN, http=http)
        assert not http.is_closed

    async def many() -> list[list[Hit]]:
        async with httpx.AsyncClient(trust_env=False) as ahttp:
            return await asyncio.gather(*(client.asearch("x", url=url, token=TOKEN, http=ahttp, timeout=20) for _ in range(9)))

    assert all(asyncio.run(many()))


def test_importing_the_client_loads_nothing_heavy() -> None:
    """No model library, no Kafka, no Postgres, no web server: it belongs into applications."""
    heavy = ["torch", "sentence_transformers", "openvino", "kafka", "psycopg", "numpy", "fastapi", "pydantic", "structlog"]
    script = f"import sys, livedex.client; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
