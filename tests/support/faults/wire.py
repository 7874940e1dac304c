"""Reads the client's side of the Postgres protocol as far as a fault needs it: which statement is under way."""

_STARTUP_REPLY = (80877103, 80877104)  # requests for TLS and for GSS encryption: no message type, one byte as the answer


class Statements:
    """Follows one connection, and says when a watched statement ends the transaction that a marked one took part in.

    Statements that psycopg prepared are sent by name, so names are remembered.
    """

    def __init__(self, ending: bytes, after: bytes) -> None:
        self._ending = ending
        self._after = after
        self._buffer = b""
        self._started = False
        self._marked_names: set[bytes] = set()
        self._marked = False  # whether the transaction under way has had a marked statement

    def ends(self, data: bytes) -> bool:
        """Feed what the client sent; whether the watched statement is in it, after a marked one."""
        self._buffer += data
        ended = False
        while (message := self._next()) is not None:
            ended = self._take(*message) or ended
        return ended

    def _next(self) -> tuple[bytes, bytes] | None:
        head = 0 if not self._started else 1
        if len(self._buffer) < head + 4:
            return None
        size = int.from_bytes(self._buffer[head : head + 4], "big")
        if len(self._buffer) < head + size:
            return None
        kind, body = self._buffer[:head], self._buffer[head + 4 : head + size]
        self._buffer = self._buffer[head + size :]
        if not head:
            self._started = int.from_bytes(body[:4], "big") not in _STARTUP_REPLY
        return kind, body

    def _take(self, kind: bytes, body: bytes) -> bool:
        if kind == b"P":  # parse: name, statement
            name, statement = body.split(b"\0")[:2]
            return self._says(name, statement)
        if kind == b"Q":
            return self._says(b"", body.rstrip(b"\0"))
        if kind == b"B":  # bind: portal, name
            self._marked = self._marked or body.split(b"\0")[1] in self._marked_names
        return False

    def _says(self, name: bytes, statement: bytes) -> bool:
        if self._after in statement:
            self._marked = True
            if name:
                self._marked_names.add(name)
        first = statement.strip().upper()
        ended = self._marked and first == self._ending.upper()
        if first in (b"COMMIT", b"ROLLBACK", b"BEGIN"):
            self._marked = False
        return ended
