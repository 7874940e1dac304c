"""PostgreSQL's frontend/backend protocol, version 3, the server's side: what a client that sends simple queries needs.

A `Talk` is one connection: `start`, then `let_in` a client that knows the password, then `query` reads what it asks, `row` and
`refuse` answer. Whatever is sent that has no place here ends the connection.
"""

import socket
import ssl
import struct
import time
from collections.abc import Mapping

from livedex.query.wire_auth import MECHANISM, Exchange, Password, ProofError

MOST_BYTES = 2**20  # of a message: the hex digits of 50 passages of 2000 characters, which take four bytes at most
VERSION = 3
SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
AUTHENTICATED, SASL, SASL_CONTINUE, SASL_FINAL = 0, 10, 11, 12
TEXT_OID = 25
# of the extended protocol; all but Sync are passed over after one error, as the protocol wants it
EXTENDED, SYNC, TERMINATE, QUERY, PASSWORD = b"PBDEHC", b"S", b"X", b"Q", b"p"
PARAMETERS = {
    "server_version": "15.0 (livedex)",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "integer_datetimes": "on",
    "standard_conforming_strings": "on",
}


class ClosedError(Exception):
    """The client went, or sent what ends the connection."""


class Talk:
    """One connection. Every method may raise ClosedError, or OSError of the socket."""

    def __init__(self, connection: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """With `tls`, clients must ask for it before they say anything."""
        self._socket = connection
        self._tls = tls
        self._deadline = float("inf")  # of time.monotonic()

    @property
    def connection(self) -> socket.socket:
        """The socket, which is another one once TLS has begun."""
        return self._socket

    @property
    def _enciphered(self) -> bool:
        return isinstance(self._socket, ssl.SSLSocket)

    def limit(self, seconds: float) -> None:
        """All that is read from now on must be there within so many seconds, else TimeoutError (an OSError)."""
        self._deadline = time.monotonic() + seconds
        self._socket.settimeout(seconds)

    def start(self) -> None:
        """Read what a client begins with."""
        while True:
            body = self._body(10_000)
            if len(body) < 4:
                raise ClosedError
            (code,) = struct.unpack_from("!I", body)
            if code == SSL_REQUEST and self._tls is not None and not self._enciphered:
                self._socket.sendall(b"S")  # nothing that was sent in plain is kept: see _exactly
                self._socket = self._tls.wrap_socket(self._socket, server_side=True)
                continue
            if code in (SSL_REQUEST, GSS_REQUEST):
                self._socket.sendall(b"N")
                continue
            if code == CANCEL_REQUEST:
                raise ClosedError
            if code >> 16 != VERSION:
                self.refuse("08P01", f"the protocol {code >> 16}.{code & 0xFFFF} is not spoken here, 3.0 is", fatal=True)
                raise ClosedError
            if self._tls is not None and not self._enciphered:
                self.refuse("28000", "this endpoint speaks TLS only: set sslmode to verify-full", fatal=True)
                raise ClosedError
            extra = [name for name in _pairs(body[4:]) if name.startswith("_pq_.")]
            if code & 0xFFFF or extra:  # the client may go on with what is spoken here
                self._socket.sendall(_message(b"v", struct.pack("!II", 0, len(extra)) + _strings(*extra)))
            return

    def let_in(self, password: Password) -> None:
        """Let the client in, if it knows the password."""
        try:
            self._authenticate(Exchange(password))
        except ProofError:
            self.refuse("28P01", "the password is not that of LIVEDEX_WIRE_PASSWORD_FILE", fatal=True)
            raise ClosedError from None
        hello = b"".join(_message(b"S", _strings(name, value)) for name, value in PARAMETERS.items())
        self._socket.sendall(hello + _ready())

    def query(self) -> str:
        """The next simple query."""
        passing_over = False
        while True:
            kind, body = self._message()
            if kind == QUERY:
                return _text(body)
            if kind == TERMINATE:
                raise ClosedError
            if kind == SYNC:
                passing_over = False
                self._socket.sendall(_ready())
            elif kind in EXTENDED and not passing_over:
                passing_over = True
                self._socket.sendall(_error("0A000", "only simple queries are answered here", severity="ERROR"))
            elif kind not in EXTENDED:
                self.refuse("08P01", f"the message {kind!r} has no place here", fatal=True)
                raise ClosedError

    def row(self, column: str, value: str) -> None:
        """Answer a query with one row of one text."""
        described = struct.pack("!H", 1) + _strings(column) + struct.pack("!IHIhiH", 0, 0, TEXT_OID, -1, -1, 0)
        content = value.encode()
        data = struct.pack("!HI", 1, len(content)) + content
        self._socket.sendall(_message(b"T", described) + _message(b"D", data) + _message(b"C", _strings("SELECT 1")) + _ready())

    def done(self, command: str) -> None:
        """Answer a query that has no rows."""
        self._socket.sendall(_message(b"C", _strings(command)) + _ready())

    def refuse(self, code: str, message: str, *, hint: str = "", fatal: bool = False) -> None:
        """Answer with an error; a fatal one is the last thing that is said."""
        error = _error(code, message, severity="FATAL" if fatal else "ERROR", hint=hint)
        self._socket.sendall(error if fatal else error + _ready())

    def _authenticate(self, exchange: Exchange) -> None:
        self._ask(SASL, MECHANISM + b"\0\0")
        mechanism, _, rest = self._proof().partition(b"\0")
        if mechanism != MECHANISM:
            raise ProofError("another mechanism")
        self._ask(SASL_CONTINUE, exchange.first(rest[4:]))
        self._ask(SASL_FINAL, exchange.final(self._proof()))
        self._ask(AUTHENTICATED)

    def _ask(self, kind: int, body: bytes = b"") -> None:
        self._socket.sendall(_message(b"R", struct.pack("!I", kind) + body))

    def _proof(self) -> bytes:
        kind, body = self._message(10_000)
        if kind != PASSWORD:
            raise ProofError("no proof")
        return body

    def _message(self, most: int = MOST_BYTES) -> tuple[bytes, bytes]:
        kind = self._exactly(1)
        return kind, self._body(most)

    def _body(self, most: int) -> bytes:
        (length,) = struct.unpack("!I", self._exactly(4))
        if not 4 <= length <= most:
            self.refuse("54000", f"a message of {length} bytes is not read, at most {most} are", fatal=True)
            raise ClosedError
        return self._exactly(length - 4)

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            # less and less: the socket's own timeout is for each piece
            self._socket.settimeout(max(0.001, self._deadline - time.monotonic()))
            piece = self._socket.recv(count - len(found))  # never more: what follows may be in TLS
            if not piece:
                raise ClosedError
            found += piece
            if time.monotonic() > self._deadline:
                raise TimeoutError
        return found


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def _ready() -> bytes:
    return _message(b"Z", b"I")


def _error(code: str, message: str, *, severity: str, hint: str = "") -> bytes:
    fields = {"S": severity, "V": severity, "C": code, "M": message, **({"H": hint} if hint else {})}
    return _message(b"E", b"".join(name.encode() + _strings(value) for name, value in fields.items()) + b"\0")


def _strings(*texts: str) -> bytes:
    return b"".join(text.replace("\0", "").encode() + b"\0" for text in texts)


def _text(body: bytes) -> str:
    return body.rstrip(b"\0").decode(errors="replace")


def _pairs(body: bytes) -> Mapping[str, str]:
    parts = [part.decode(errors="replace") for part in body.split(b"\0")]
    return dict(zip(parts[::2], parts[1::2], strict=False))
