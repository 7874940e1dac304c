"""HTTP/1.1 for clients that do not dawdle: uvicorn waits for ever for a request that was begun and does not end."""

import asyncio
import json
from http import HTTPStatus

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

LONGEST_HEAD = 128 * 1024  # bytes: 8192 characters of any script, as an address writes them
REQUEST_SECONDS = 20.0  # for a whole request, its body included; what is answered may take longer


class HastyProtocol(H11Protocol):
    """Closes a connection on which no request is complete after REQUEST_SECONDS, or none begins."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """See asyncio."""
        super().connection_made(transport)
        self._hurry()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        super().data_received(data)
        self._hurry()

    def on_response_complete(self) -> None:
        """See uvicorn. What came with the request before is looked at now, and no more of it may come."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._hurry()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._rest()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """See uvicorn. What is no HTTP is told as every other problem is."""
        told = {"type": "about:blank", "title": HTTPStatus.BAD_REQUEST.phrase, "status": HTTPStatus.BAD_REQUEST, "detail": msg}
        body = json.dumps(told).encode()
        headers = [("content-type", "application/problem+json"), ("content-length", str(len(body))), ("connection", "close")]
        head = h11.Response(status_code=HTTPStatus.BAD_REQUEST, headers=headers, reason=HTTPStatus.BAD_REQUEST.phrase)
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    def _hurry(self) -> None:
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):  # it is complete: now the worker has to answer
            self._rest()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.close)

    def _rest(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
