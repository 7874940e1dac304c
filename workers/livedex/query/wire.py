"""An endpoint for databases that dial out: it speaks PostgreSQL's protocol, and answers the statement of wire_answer.py.

livedex.ask_by_dblink in schema/sql/6_embed.sql asks over a connection that its session keeps.
"""

import contextlib
import re
import socket
import ssl
import threading
import time
from collections import Counter
from typing import Literal

from livedex.config import Settings
from livedex.errors import ConfigError
from livedex.http_server import listen
from livedex.observe import logger
from livedex.query.wire_answer import Answerer, StatementError
from livedex.query.wire_auth import Password, read_password
from livedex.query.wire_protocol import ClosedError, Talk

MOST_CONNECTIONS = 500  # each is a thread that sleeps: one for each database session that has asked of late
MOST_STRANGERS = 100  # of them that have not said the password yet: they keep no place from those that have
MOST_REFUSED = 50  # at a time that are told so; more are closed without a word
LOGIN_SECONDS = 5.0  # for all up to the password
IDLE_SECONDS = 300.0  # until the next statement is there; who asks again later connects again

Kind = Literal["stranger", "known", "refused"]  # before the password and after it, and those for whom there is no place

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
    password, tls = read_password(settings.wire_password_file), _tls(settings)
    return WireServer(listen(settings.wire_host, settings.wire_port, "LIVEDEX_WIRE_PORT"), password, answerer, tls)


def _tls(settings: Settings) -> ssl.SSLContext | None:
    """What the endpoint shows to who asks for TLS; None without a certificate."""
    certificate, key = settings.wire_certificate_file, settings.wire_key_file
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("of LIVEDEX_WIRE_CERTIFICATE_FILE and LIVEDEX_WIRE_KEY_FILE only one is set: set both, or none")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password="")  # without one OpenSSL would ask for it at the terminal
    except OSError as error:
        why = getattr(error, "reason", None) or error.strerror
        raise ConfigError(
            f"the certificate {certificate} and the key {key} of the endpoint cannot be used ({why}): check "
            "LIVEDEX_WIRE_CERTIFICATE_FILE and LIVEDEX_WIRE_KEY_FILE"
        ) from None
    return context


class WireServer:
    """The endpoint on a socket that is listening already; one thread for each connection."""

    def __init__(self, listener: socket.socket, password: str, answerer: Answerer, tls: ssl.SSLContext | None = None) -> None:
        self._listener = listener
        host, port = listener.getsockname()[:2]
        self.address = f"{host}:{port}"  # as bound
        self._password = Password(password)
        self._answerer = answerer
        self._tls = tls
        self._lock = threading.Lock()
        self._open: dict[socket.socket, Kind] = {}

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
                why = self._refusal()
                there = Counter(self._open.values())["refused"]
                if why is None or there < MOST_REFUSED:
                    self._open[connection] = "refused" if why else "stranger"
            if connection in self._open:
                arguments = (connection, why)
                threading.Thread(target=self._serve, args=arguments, name="wire-session", daemon=True).start()
            else:
                _shut(connection)

    def _refusal(self) -> str | None:
        """Why there is no place for one more; None when there is."""
        there = Counter(self._open.values())
        if there["stranger"] + there["known"] >= MOST_CONNECTIONS:
            return f"the query worker has {MOST_CONNECTIONS} connections already"
        if there["stranger"] >= MOST_STRANGERS:
            return f"{MOST_STRANGERS} connections to the query worker are at their login already"
        return None

    def _serve(self, connection: socket.socket, refusal: str | None) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            with contextlib.suppress(ClosedError, OSError):
                talk = Talk(connection, self._tls)
                talk.limit(LOGIN_SECONDS)
                talk.start()
                with self._lock:  # TLS has taken the socket over
                    self._open[talk.connection] = self._open.pop(connection)
                connection = talk.connection
                if refusal is not None:
                    talk.refuse("53300", refusal, fatal=True)
                    return
                talk.let_in(self._password)
                with self._lock:
                    self._open[connection] = "known"
                self._answer(talk)
        finally:
            with self._lock:
                self._open.pop(connection, None)
            _shut(connection)

    def _answer(self, talk: Talk) -> None:
        while True:
            talk.limit(IDLE_SECONDS)
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
