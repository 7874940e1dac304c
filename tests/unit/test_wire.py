"""The endpoint that databases ask: a client of PostgreSQL's protocol gets vectors for one statement, and nothing else."""

import contextlib
import hashlib
import json
import secrets
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import psycopg
import pytest
from psycopg import errors

from livedex.config import Settings
from livedex.core.mailbox import WIRE_PURPOSES, WirePurpose
from livedex.encoders import ModelSpec
from livedex.encoders.hash import HashEncoder
from livedex.encoders.reranker import WordsReranker
from livedex.errors import ConfigError, SystemicError, TimedOutError, UnavailableError
from livedex.observe import QueryMetrics
from livedex.query import wire
from livedex.query.wire import WireServer, endpoint
from livedex.query.wire_answer import Answerer, StatementError, parse
from livedex.query.wire_auth import Exchange, Password, ProofError, read_password
from support.secure.certificates import Certificates
from support.waiting import until
from support.workers import Metrics

HASH = HashEncoder(ModelSpec(model="hash-16"))
PASSWORD = "a-password-of-the-test"
SECRET = bytes(32)
GENERATION = 7
QUESTION = "why is the sky blue?"


def statement(
    text: str = QUESTION,
    *,
    generation: int = GENERATION,
    purpose: WirePurpose = "embed",
    secret: bytes = SECRET,
    ms: int = 2000,
) -> str:
    """As livedex.ask_endpoint writes it."""
    payload = struct.pack(">iB", generation, WIRE_PURPOSES.index(purpose)) + text.encode()
    tag = hashlib.sha256(secret + hashlib.sha256(secret + b"wire" + payload).digest()).digest()[:16]
    verb = "rerank" if purpose == "rerank" else "embed"
    return f"SELECT {verb}({generation}, '{text.encode().hex()}', '{tag.hex()}', '{purpose}', {ms})"


@dataclass
class Worker:
    """Stands for the rest of the query worker: one generation, and errors on request."""

    metrics: QueryMetrics = field(default_factory=QueryMetrics)
    secret: bytes = SECRET
    secret_reads: int = 0
    error: Exception | None = None
    deadlines: list[float] = field(default_factory=list)

    def with_id(self, generation_id: int) -> Any:
        """See Encoders."""
        return "the generation" if generation_id == GENERATION else None

    def vectors(self, generation: Any, texts: list[str], *, deadline: float) -> Any:
        """See QueryEmbedder."""
        assert generation == "the generation"
        self.deadlines.append(deadline)
        if self.error is not None:
            raise self.error
        return HASH.encode_queries(texts)

    def reranker(self, generation: Any) -> WordsReranker:
        """See Encoders."""
        assert generation == "the generation"
        if self.error is not None:
            raise self.error
        return WordsReranker()

    def read_secret(self) -> bytes:
        """What the database says."""
        self.secret_reads += 1
        return self.secret

    def answerer(self) -> Answerer:
        """What answers with this."""
        return Answerer(cast("Any", self), cast("Any", self), self.metrics, self.read_secret)

    def count(self, code: str) -> float:
        """How many answers had this code."""
        from prometheus_client import generate_latest

        found = Metrics(generate_latest(self.metrics.registry).decode())
        return found.value("livedex_search_requests_total", route="sql", code=code)


@pytest.fixture
def worker() -> Worker:
    """One of the test's own."""
    return Worker()


@pytest.fixture
def server(worker: Worker, tmp_path: Path) -> Iterator[WireServer]:
    """An endpoint on a free port."""
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    settings = Settings(wire_port=0, wire_password_file=tmp_path / "password")
    made = endpoint(settings, worker.answerer())
    assert made is not None
    made.start()
    yield made
    made.stop()


def connect(server: WireServer, **options: Any) -> "psycopg.Connection[tuple[Any, ...]]":
    """A client that knows the password, unless told otherwise."""
    host, _, port = server.address.rpartition(":")
    usual = {"host": host, "port": port, "user": "livedex", "dbname": "livedex", "password": PASSWORD}
    return psycopg.connect(**{**usual, **options}, autocommit=True, connect_timeout=5)


def ask(connection: "psycopg.Connection[tuple[Any, ...]]", text: str) -> str:
    """The first column of the only row."""
    (row,) = connection.execute(text.encode()).fetchall()
    return str(row[0])


# --- TLS


@pytest.fixture
def pair(tmp_path: Path) -> Certificates:
    """Certificates of an authority of this test's own."""
    return Certificates(tmp_path)


@pytest.fixture
def secure(worker: Worker, tmp_path: Path, pair: Certificates) -> Iterator[WireServer]:
    """An endpoint with a certificate for localhost."""
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    own = pair.server()
    settings = Settings(wire_port=0, wire_password_file=tmp_path / "password",
                        wire_certificate_file=own.certificate, wire_key_file=own.key)  # fmt: skip
    made = endpoint(settings, worker.answerer())
    assert made is not None
    made.start()
    yield made
    made.stop()


def test_a_certificate_is_verified(secure: WireServer, pair: Certificates) -> None:
    """A client that trusts its authority and asks for its host gets vectors over TLS, however long; any other goes away."""
    trusted = {"host": "localhost", "hostaddr": "127.0.0.1", "sslmode": "verify-full", "sslrootcert": str(pair.authority)}
    with connect(secure, **trusted) as connection:
        assert connection.pgconn.ssl_in_use
        for text in (QUESTION, "z" * 8192):
            assert ask(connection, statement(text))
    for wrong in ({"host": "127.0.0.1"}, {"sslrootcert": str(pair.foreign_authority)}):
        with pytest.raises(psycopg.OperationalError, match="certificate"):
            connect(secure, **{**trusted, **wrong})
    until(lambda: not secure._open, what="the endpoint to let go of all connections")


def test_with_a_certificate_nothing_is_answered_in_plain(secure: WireServer) -> None:
    """Not even asked for a password, so that a client without TLS sends nothing that is worth reading."""
    with pytest.raises(psycopg.OperationalError, match="speaks TLS only: set sslmode to verify-full"):
        connect(secure, sslmode="disable")


def test_a_handshake_that_does_not_end_is_closed(secure: WireServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the time of a login."""
    monkeypatch.setattr(wire, "LOGIN_SECONDS", 0.5)
    host, _, port = secure.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(struct.pack("!II", 8, 80877103))
        assert client.recv(1) == b"S"
        assert client.recv(1) == b""


def test_what_is_sent_along_with_the_wish_for_tls_is_not_taken(secure: WireServer) -> None:
    """Who sits between could put it there: it is part of the handshake, which fails."""
    startup = struct.pack("!I", 3 << 16) + b"user\0livedex\0\0"
    host, _, port = secure.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as client:
        client.sendall(struct.pack("!II", 8, 80877103) + struct.pack("!I", 4 + len(startup)) + startup)
        answered = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(1024):
                answered += piece
    assert answered[:1] == b"S"
    assert answered[1:2] in (b"", b"\x15"), "an alert of TLS, and no message of the protocol"


@pytest.mark.parametrize(
    ("certificate", "key"), [("client", None), (None, "client"), ("client", "server"), ("absent", "client")]
)
def test_a_wrong_certificate_stops_the_start(
    certificate: str | None, key: str | None, worker: Worker, tmp_path: Path, pair: Certificates
) -> None:
    """Half of it, one that does not fit its key, one that is not there."""
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    pair.client()
    pair.server()
    settings = Settings(
        wire_port=0, wire_password_file=tmp_path / "password",
        wire_certificate_file=tmp_path / f"{certificate}.crt" if certificate else None,
        wire_key_file=tmp_path / f"{key}.key" if key else None,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="LIVEDEX_WIRE_CERTIFICATE_FILE and LIVEDEX_WIRE_KEY_FILE"):
        endpoint(settings, worker.answerer())


# --- what it answers


def test_a_client_that_knows_the_password_gets_vectors(server: WireServer, worker: Worker) -> None:
    """The very numbers of the model, for one text after the other, and the worker counts them."""
    with connect(server) as connection:
        assert connection.info.parameter_status("client_encoding") == "UTF8"
        for text in (QUESTION, "ж字😀 ' \\", "z" * 8192):
            vector = np.array(ask(connection, statement(text))[1:-1].split(","), np.float32)
            np.testing.assert_array_equal(vector, HASH.encode_queries([text])[0])
    assert worker.count("00000") == 3
    assert worker.secret_reads == 1


def to_rerank(*passages: Any) -> str:
    """A statement that has these judged."""
    return statement(json.dumps({"query": "how is a sail mended", "passages": passages}, ensure_ascii=False), purpose="rerank")


def test_passages_are_reranked(server: WireServer, worker: Worker) -> None:
    """The scores come in the order of the passages, also of many that are long."""
    with connect(server) as connection:
        scores = json.loads(ask(connection, to_rerank("fog", "this is how a sail is mended", "a sail")))
        assert scores == pytest.approx([0.0, 1.0, 0.4])
        assert len(json.loads(ask(connection, to_rerank(*["😀" * 2000] * 50)))) == 50
    assert worker.count("00000") == 0, "a stage of a search is no request"


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (to_rerank(*["x"] * 51), "54000"),
        (statement("[]", purpose="rerank"), "22023"),
        (statement('{"query": "x"}', purpose="rerank"), "22023"),
        (statement("no JSON", purpose="rerank"), "22023"),
        (to_rerank("x").replace("SELECT rerank", "SELECT embed"), "42601"),
        (statement().replace("SELECT embed", "SELECT rerank"), "42601"),
        (statement("{}", purpose="rerank", secret=b"x" * 32), "57P03"),
    ],
)
def test_what_cannot_be_reranked_is_refused(worker: Worker, asked: str, code: str) -> None:
    """Each with a code of its own."""
    with pytest.raises(StatementError) as refused:
        worker.answerer().answer(asked)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TimedOutError("too late"), "57014"),
        (UnavailableError("embedder", "not loaded"), "57P03"),
        (SystemicError("embedder", "another model"), "57P03"),
        (ValueError("x"), "57P03"),
    ],
)
def test_a_reranker_that_does_not_answer_is_told(worker: Worker, error: Exception, code: str) -> None:
    """What the model makes of a passage stays in the worker."""
    worker.error = error
    with pytest.raises(StatementError) as refused:
        worker.answerer().answer(to_rerank("x"))
    assert refused.value.code == code


def test_another_model_is_told_with_its_remedy(worker: Worker) -> None:
    """It is the operator's, who may read it; what else a model raises may hold the text, and stays in the worker."""
    told = []
    for error in (SystemicError("embedder", "serve the model of the generation"), ValueError("secret text")):
        worker.error = error
        with pytest.raises(StatementError) as refused:
            worker.answerer().answer(statement())
        told.append((refused.value.code, str(refused.value)))
    assert told == [
        ("57P03", "serve the model of the generation"),
        ("57P03", "the query worker could not embed the text"),
    ]


def test_what_is_no_number_is_not_given_out(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a vector nor as a score: the database would raise its own error for it."""
    monkeypatch.setattr(WordsReranker, "scores", lambda *_, **__: np.array([np.nan], np.float32))
    monkeypatch.setattr(worker.__class__, "vectors", lambda *_, **__: np.full((1, 16), np.nan, np.float32))
    for asked in (to_rerank("x"), statement()):
        with pytest.raises(StatementError) as refused:
            worker.answerer().answer(asked)
        assert refused.value.code == "57P03"


def test_settings_of_a_client_are_let_pass(server: WireServer) -> None:
    """Dblink sets the encoding where the database has another one."""
    with connect(server) as connection:
        assert connection.execute("SET client_encoding TO 'LATIN1'").statusmessage == "SET"
        assert ask(connection, statement()).startswith("[")


def test_clients_do_not_wait_for_each_other(server: WireServer) -> None:
    """Each has a thread of its own."""
    with connect(server) as idle, connect(server) as other:
        assert ask(other, statement()) == ask(idle, statement())


def test_a_newer_protocol_is_talked_down(server: WireServer) -> None:
    """A client that speaks 3.2 learns that 3.0 is spoken here, and goes on with that."""
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        body = struct.pack("!I", 3 << 16 | 2) + b"user\0livedex\0_pq_.new\0on\0\0"
        connection.sendall(struct.pack("!I", len(body) + 4) + body)
        expected = b"v" + struct.pack("!III", 4 + 8 + len("_pq_.new") + 1, 0, 1) + b"_pq_.new\0" + b"R"
        assert connection.makefile("rb").read(len(expected)) == expected


def test_the_deadline_comes_with_the_statement(server: WireServer, worker: Worker) -> None:
    """The model is told how long is left."""
    with connect(server) as connection:
        ask(connection, statement(ms=1000))
        ask(connection, statement(ms=500_000))
    assert 400 < worker.deadlines[1] - worker.deadlines[0] < 510


# --- whom it refuses


@pytest.mark.parametrize("password", ["another-password-here", PASSWORD.upper(), "x"])
def test_another_password_is_refused(server: WireServer, worker: Worker, password: str) -> None:
    """And the error tells what to compare."""
    with pytest.raises(psycopg.OperationalError, match="not that of LIVEDEX_WIRE_PASSWORD_FILE"):
        connect(server, password=password)
    assert not worker.deadlines


def test_a_client_cannot_choose_a_weaker_way(server: WireServer) -> None:
    """Whoever insists on another method than SCRAM does not get in."""
    for method in ("password", "md5", "none"):
        with pytest.raises(psycopg.OperationalError, match=r"SASL|SCRAM|auth"):
            connect(server, require_auth=method)


def test_the_server_proves_itself_too(server: WireServer) -> None:
    """A client leaves a server whose own proof is wrong, as one that only listens to clients would have it."""
    server._password.server_key = secrets.token_bytes(32)
    with pytest.raises(psycopg.OperationalError, match="server signature"):
        connect(server)


@pytest.mark.parametrize("message", [b"", b"p=tls-unique,,n=,r=abc", b"n,,n=", b"n,,r=abc", b"y,,n=,r=", b"\xff" * 50])
def test_what_is_no_first_message_is_refused(message: bytes) -> None:
    """Also a wish for channel binding, which was not offered."""
    with pytest.raises(ProofError):
        Exchange(Password(PASSWORD)).first(message)


def test_a_proof_of_another_exchange_is_refused() -> None:
    """A final message that was overheard does not open a second connection."""
    password = Password(PASSWORD)
    first = Exchange(password)
    answer = first.first(b"n,,n=,r=abc")
    nonce = answer.split(b",")[0]
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), password.salt, 4096)
    final = _final(salted, b"n=,r=abc", answer, nonce)
    assert first.final(final).startswith(b"v=")
    second = Exchange(password)
    second.first(b"n,,n=,r=abc")
    for message in (final, b"", b"c=biws", final[:-4], final.replace(b"biws", b"eSws")):
        with pytest.raises(ProofError):
            second.final(message)


def _final(salted: bytes, bare: bytes, server_first: bytes, nonce: bytes) -> bytes:
    import base64
    import hmac

    key = hmac.digest(salted, b"Client Key", "sha256")
    unproven = b"c=biws," + nonce
    exchanged = b",".join((bare, server_first, unproven))
    signature = hmac.digest(hashlib.sha256(key).digest(), exchanged, "sha256")
    return unproven + b",p=" + base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True)))


def test_there_is_no_endpoint_without_a_password(tmp_path: Path, worker: Worker) -> None:
    """No port, no endpoint; a port without a password, or with a poor one, is a mistake that says so."""
    assert endpoint(Settings(), worker.answerer()) is None
    with pytest.raises(ConfigError, match="LIVEDEX_WIRE_PASSWORD_FILE"):
        endpoint(Settings(wire_port=0), worker.answerer())
    with pytest.raises(ConfigError, match="cannot be read"):
        read_password(tmp_path / "absent")
    for content in ("", "short", "s3cret with blanks in it", "s3cret-s3cret-пароль", "s3cret" * 200):
        (tmp_path / "poor").write_text(content)
        with pytest.raises(ConfigError, match="16 to 1024") as refused:
            read_password(tmp_path / "poor")
        assert "s3cret" not in str(refused.value)


# --- what it refuses


@pytest.mark.parametrize(
    "wrong",
    ["", "select 1", "SELECT embed(7, 'zz', '00', 'embed', 1)", "SELECT embed(7, '6869', '00', 'steal', 1)", "begin",
     "SELECT embed(7, '6869')", statement() + "; select 1", statement().replace("7", "-7", 1)],
)  # fmt: skip
def test_other_statements_are_refused(server: WireServer, worker: Worker, wrong: str) -> None:
    """With a syntax error, after which the connection goes on."""
    with connect(server) as connection:
        with pytest.raises(errors.SyntaxError, match="only SELECT embed"):
            connection.execute((wrong or " ").encode())
        assert ask(connection, statement()).startswith("[")
    assert worker.count("42601") == 1


def test_a_text_that_is_too_long_is_refused(server: WireServer) -> None:
    """Above 8 kB with its SQLSTATE; a message beyond all bounds ends the connection."""
    with connect(server) as connection:
        with pytest.raises(errors.ProgramLimitExceeded, match="8193 bytes, at most 8192"):
            connection.execute(statement("z" * 8193).encode())
        assert ask(connection, statement()).startswith("[")
        with pytest.raises(psycopg.OperationalError):
            connection.execute(statement("z" * 600_000).encode())
        assert connection.broken


@pytest.mark.parametrize("text", ["f", "ff", "c328"])
def test_a_text_that_is_no_text_is_refused(text: str) -> None:
    """Half a byte, and what is no UTF-8."""
    with pytest.raises(StatementError, match="UTF-8 in hex digits"):
        parse(f"SELECT embed(7, '{text}', '00', 'embed', 1)")


@pytest.mark.parametrize(
    "forged",
    [statement(secret=b"x" * 32), statement().replace("embed',", "vector',"), statement().replace("(7", "(8"),
     statement("a").replace("'61'", "'62'"), "SELECT embed(7, '6869', '', 'embed', 1)"],
)  # fmt: skip
def test_a_statement_that_livedex_did_not_write_is_refused(server: WireServer, worker: Worker, forged: str) -> None:
    """Who may use the connection but does not know the database's secret gets nothing embedded."""
    with connect(server) as connection, pytest.raises(errors.CannotConnectNow, match="another database"):
        connection.execute(forged.encode())
    assert not worker.deadlines


def test_a_new_secret_is_noticed(server: WireServer, worker: Worker) -> None:
    """An operator may change it while the worker runs."""
    with connect(server) as connection:
        ask(connection, statement())
        worker.secret = secrets.token_bytes(32)
        ask(connection, statement(secret=worker.secret))
    assert worker.secret_reads == 2


@pytest.mark.parametrize(
    ("error", "expected", "says"),
    [
        (TimedOutError("late"), errors.QueryCanceled, "in time"),
        (UnavailableError("embedder", "it is being loaded"), errors.CannotConnectNow, "being loaded"),
        (ValueError("of a library"), errors.CannotConnectNow, "could not embed"),
    ],
)
def test_what_keeps_a_vector_has_its_code(
    server: WireServer, worker: Worker, error: Exception, expected: type[Exception], says: str
) -> None:
    """A deadline, a model that is not loaded, a model that fails; the next text is answered."""
    with connect(server) as connection:
        worker.error = error
        with pytest.raises(expected, match=says):
            connection.execute(statement().encode())
        worker.error = None
        assert ask(connection, statement()).startswith("[")


def test_a_generation_of_another_time_is_refused(server: WireServer) -> None:
    """The worker serves what is active."""
    with connect(server) as connection, pytest.raises(errors.CannotConnectNow, match="generation 8 is not one"):
        connection.execute(statement(generation=8).encode())


def test_the_extended_protocol_is_refused_once(server: WireServer) -> None:
    """Parameters are not understood, and simple queries go on."""
    with connect(server) as connection:
        with pytest.raises(errors.FeatureNotSupported, match="simple queries"):
            connection.execute("select %s", (1,))
        assert ask(connection, statement()).startswith("[")


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x04", b"\0\0\0\x08\x04\xd2\x16\x2e", b"\0\0\0\x09\0\x02\0\0\0", b"\xff" * 99],
)
def test_what_is_no_client_is_closed(server: WireServer, sent: bytes) -> None:
    """And the endpoint goes on."""
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as stranger:
        stranger.sendall(sent)
        with contextlib.suppress(OSError):  # closed already
            stranger.shutdown(socket.SHUT_WR)
        with stranger.makefile("rb") as answer, contextlib.suppress(ConnectionResetError):
            assert answer.read(1) in (b"", b"E")
    with connect(server) as connection:
        assert ask(connection, statement()).startswith("[")


# --- how it lives


def test_connections_are_bounded(server: WireServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is refused, until another goes."""
    monkeypatch.setattr(wire, "MOST_CONNECTIONS", 2)
    with connect(server), connect(server) as second:
        with pytest.raises(psycopg.OperationalError, match="2 connections already"):
            connect(server)
        second.close()
        until(lambda: len(server._open) == 1)
        with connect(server) as third:
            assert ask(third, statement()).startswith("[")


def test_a_flood_makes_no_threads(server: WireServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond those that are refused in words, strangers are closed at once."""
    monkeypatch.setattr(wire, "MOST_CONNECTIONS", 1)
    monkeypatch.setattr(wire, "MOST_REFUSED", 2)
    host, _, port = server.address.rpartition(":")
    strangers = [socket.create_connection((host, int(port)), timeout=5) for _ in range(20)]
    try:
        assert strangers[-1].recv(1) == b""
        assert len([thread for thread in threading.enumerate() if thread.name == "wire-session"]) <= 3
    finally:
        for stranger in strangers:
            stranger.close()
    until(lambda: not server._open)
    with connect(server) as connection:
        assert ask(connection, statement()).startswith("[")


def test_a_login_that_drips_is_closed(server: WireServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One deadline holds for all of it, however often another byte comes."""
    monkeypatch.setattr(wire, "LOGIN_SECONDS", 0.3)
    host, _, port = server.address.rpartition(":")
    began = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=0.05) as client, contextlib.suppress(ConnectionError):
        client.sendall(struct.pack("!II", 9000, 3 << 16))
        while time.monotonic() - began < 20:
            client.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                if client.recv(1) == b"":
                    break
    assert time.monotonic() - began < 10, "9,000 bytes would take minutes"


def test_strangers_keep_no_place_from_those_who_know_the_password(server: WireServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are few at a time; who is in stays in, and with a stranger less the next one comes in."""
    monkeypatch.setattr(wire, "MOST_STRANGERS", 2)
    host, _, port = server.address.rpartition(":")
    with contextlib.ExitStack() as inside:
        for number in range(1, 4):
            known = inside.enter_context(connect(server))
            until(lambda number=number: list(server._open.values()) == ["known"] * number)  # type: ignore[misc]
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
            until(lambda: list(server._open.values()).count("stranger") == 2)
            with pytest.raises(psycopg.OperationalError, match="2 connections to the query worker are at their login"):
                connect(server)
            assert ask(known, statement()).startswith("[")
        until(lambda: "stranger" not in server._open.values())
        with connect(server) as next_one:
            assert ask(next_one, statement()).startswith("[")


@pytest.mark.parametrize("login", [True, False])
def test_who_is_silent_is_closed(server: WireServer, monkeypatch: pytest.MonkeyPatch, login: bool) -> None:
    """Before the password soon, afterwards later."""
    monkeypatch.setattr(wire, "LOGIN_SECONDS", 0.2 if login else 5.0)
    monkeypatch.setattr(wire, "IDLE_SECONDS", 0.2)
    host, _, port = server.address.rpartition(":")
    client: Any = socket.create_connection((host, int(port)), timeout=5) if login else connect(server)
    with client:
        until(lambda: server._open)
        until(lambda: not server._open, timeout=5)


def test_the_end_closes_everything(server: WireServer) -> None:
    """Clients notice, the port is free, and no thread stays."""
    connection = connect(server)
    server.stop()
    with connection, pytest.raises(psycopg.OperationalError):
        connection.execute(statement().encode())
    until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("wire")])
    with pytest.raises(psycopg.OperationalError):
        connect(server)
