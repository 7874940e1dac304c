"""An endpoint for databases that dial out: it speaks PostgreSQL's protocol, and answers the statement of wire_answer.py.

livedex.ask_by_dblink in schema/sql/6_embed.sql asks over a connection that its session keeps.
"""

import contextlib
import re
import socket
import threading
import time

from livedex.config import Settings
from livedex.errors import ConfigError
from livedex.http_server import listen
from livedex.observe import logger
from livedex.query.wire_answer import Answerer, StatementError
from livedex.query.wire_auth import Password, read_password
from livedex.query.wire_protocol import ClosedError, Talk

MOST_CONNECTIONS = 500  # each is a thread that sleeps: one for each database session that has asked of late
MOST_REFUSED = 50  # at a time that are told so; more are closed without a word
LOGIN_SECONDS = 5.0  # for each message up to the password
IDLE_SECONDS = 300.0  # who asks again later connects again

_SETTING = re.compile(r"\s*set\s.*", re.IGNORECASE | re.DOTALL)  # dblink sets the encoding; all that is sent is ASCII
_log = logger("wire")


def endpoint(settings: Settings, answerer: Answerer) -> "WireServer | None":
    """The endpoint that these settings want, listening already; ConfigError when it has no password or no place."""
    if settings.wire_port is None:
        return None
    if settings.wire_password_file is None:
        raise ConfigError(
            "LIVEDEX_WIRE_PORT is set, and without a password anybody there could ask: name a file with one in "
            "LIVEDEX_WIRE_PASSWORD_FILE"
        )
    password = read_password(settings.wire_password_file)
    return WireServer(listen(settings.wire_host, settings.wire_port, "LIVEDEX_WIRE_PORT"), password, answerer)


class WireServer:
    """The endpoint on a socket that is listening already; one thread for each connection."""

    def __init__(self, listener: socket.socket, password: str, answerer: Answerer) -> None:
        self._listener = listener
        host, port = listener.getsockname()[:2]
        self.address = f"{host}:{port}"  # as bound
        self._password = Password(password)
        self._answerer = answerer
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    def start(self) -> None:
        """Begin to answer."""
        _log.info("wire.started", address=self.address)
        threading.Thread(target=self._accept, name="wire", daemon=True).start()

    def stop(self) -> None:
        """Close everything; what is being embedded is not answered."""
        _shut(self._listener)
        with self._lock:
            for connection in self._open:
                _shut(connection)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # the end, unless a client or the limit of open files is to blame
                if self._listener.fileno() < 0:
                    return
                time.sleep(0.05)
                continue
            with self._lock:
                there = len(self._open)
                if there < MOST_CONNECTIONS + MOST_REFUSED:
                    self._open.add(connection)
            if there < MOST_CONNECTIONS + MOST_REFUSED:
                arguments = (connection, there >= MOST_CONNECTIONS)
                threading.Thread(target=self._serve, args=arguments, name="wire-session", daemon=True).start()
            else:
                _shut(connection)

    def _serve(self, connection: socket.socket, full: bool) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.settimeout(LOGIN_SECONDS)
            with contextlib.suppress(ClosedError, OSError):
                self._talk(Talk(connection), connection, full=full)
        finally:
            with self._lock:
                self._open.discard(connection)
            _shut(connection)

    def _talk(self, talk: Talk, connection: socket.socket, *, full: bool) -> None:
        talk.start()
        if full:
            talk.refuse("53300", f"the query worker has {MOST_CONNECTIONS} connections already", fatal=True)
            return
        talk.let_in(self._password)
        connection.settimeout(IDLE_SECONDS)
        while True:
            statement = talk.query()
            if _SETTING.fullmatch(statement):
                talk.done("SET")
                continue
            try:
                vector = self._answerer.answer(statement)
            except StatementError as error:
                talk.refuse(error.code, str(error), hint=error.hint)
            else:
                talk.row("embed", vector)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # wakes the thread that reads or accepts
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
