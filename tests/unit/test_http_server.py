"""The HTTP server of both workers."""

import asyncio
import socket

import pytest

from livedex.errors import ConfigError
from livedex.http_server import listen


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
