"""The HTTP server of both workers."""

import asyncio
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI, Request

from livedex import http_protocol
from livedex.errors import ConfigError
from livedex.http_server import HttpServer, listen
from support.waiting import until


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """Connections are without Nagle's delay, which together with the client's own costs 40 ms an answer."""

    async def delay_is_off() -> int:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = listen("127.0.0.1", 0, "THE_PORT")
        async with await asyncio.start_server(accept, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            found = await accepted
            writer.close()
            await writer.wait_closed()
            return found

    assert asyncio.run(delay_is_off())


def test_a_busy_port_is_told_with_its_setting() -> None:
    """One line, with what to choose."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1:\d+: .*; choose another with THE_PORT"):
            listen("127.0.0.1", taken.getsockname()[1], "THE_PORT")


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """Of a server that waits for requests for a second, and takes its time to answer at /slow."""
    monkeypatch.setattr(http_protocol, "REQUEST_SECONDS", 1.0)
    app = FastAPI()

    @app.post("/slow")
    async def slow(request: Request) -> int:
        await asyncio.sleep(2)
        return len(await request.body())

    listener = listen("127.0.0.1", 0, "THE_PORT")
    server = HttpServer(app, listener)
    server.start()
    host, port = server.address.split(":")
    try:
        yield host, int(port)
    finally:
        server.stop()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /slow HTTP/1.1\r\nHost: x\r\n",
        b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab",
        b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\n",
    ],
    ids=["nothing", "half a head", "half a body", "half of the second"],
)
def test_a_request_that_does_not_end_is_closed(address: tuple[str, int], sent: bytes) -> None:
    """Whatever it stops at, drips included: a client keeps no connection by saying nothing."""
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(sent)
        until(lambda: closed(client, drip=b"X" if sent else b""), timeout=10, what="the server to close the connection")


def test_a_second_request_that_came_with_the_first_has_to_end_too(address: tuple[str, int]) -> None:
    """A complete one and half a body of the next in one packet, and then silence: nothing arrives that would be looked at."""
    half = b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab"
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" + half)
        until(lambda: closed(client, drip=b""), timeout=10, what="the server to close the connection")


def closed(client: socket.socket, *, drip: bytes) -> bool:
    """Whether the server closed it, after one more byte where there is one."""
    client.settimeout(0.2)
    try:
        client.sendall(drip)
        return client.recv(65536) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_an_answer_may_take_longer(address: tuple[str, int]) -> None:
    """What is complete is answered, and tells browsers not to guess."""
    answer = httpx.post(f"http://{address[0]}:{address[1]}/slow", content=b"abc", timeout=10, trust_env=False)
    assert (answer.status_code, answer.text) == (200, "3")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers


def test_a_long_address_may_come_in_pieces(address: tuple[str, int]) -> None:
    """A question of 8192 characters takes 49 kB where none of them is ASCII; beyond what any takes, a problem says so."""
    for question, status in (("%D1%84" * 8192, b"404"), ("x" * 2 * http_protocol.LONGEST_HEAD, b"400")):
        request = f"GET /nothing?q={question} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        with socket.create_connection(address, timeout=10) as client:
            for start in range(0, len(request), 10_000):
                client.sendall(request[start : start + 10_000])
                if start + 10_000 > http_protocol.LONGEST_HEAD:
                    break  # the server reads no more, and closes
                time.sleep(0.01)  # so that it does not come in one read
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.split(b" ", 2)[1] == status
    assert b"content-type: application/problem+json" in answer.lower()
    assert b'"detail": "Invalid HTTP request received."' in answer
