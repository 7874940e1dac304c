"""What a command says of a user's mistake and of what does not answer: the documented exit code, one line, no traceback."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from psycopg import sql

from livedex import apply
from livedex.database import connect
from livedex.errors import ConfigError
from livedex.index.app import IndexApp
from livedex.query.app import QueryApp
from support.terminal import Terminal
from support.workers import Workers, free_port


@pytest.fixture
def livedex(workers: Workers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """The command line, on a migrated and empty database."""
    environment = {
        "LIVEDEX_KAFKA_BOOTSTRAP_SERVERS": workers.stack.kafka_bootstrap_servers,
        "LIVEDEX_DATABASE_URL": workers.database_url,
        "LIVEDEX_EMBEDDER": "hash",
        "LIVEDEX_HTTP_PORT": str(free_port()),
    }
    return Terminal(environment, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["wait", "no-token"], "'no-token' is no topic:partition:offset"),
        (["wait", "t:0:x"], "is no topic:partition:offset"),
        (["publish", "/does/not/exist.md"], "/does/not/exist.md is neither a file nor a folder"),
        (["publish"], "PATH"),
        (["delete"], "ID"),
        (["search"], "text"),
        (["search", "x", "-k", "0"], "-k"),
        (["search", "x", "--filter", "{"], "--filter '{' is no JSON object"),
        (["search", "x", "--filter", "[]"], "filter"),
        (["search", "x", "--mode", "fuzzy"], "mode"),
        (["search", ""], "query"),
        (["dead-letters", "list", "--state", "closed"], "--state"),
        (["dead-letters", "show", "x"], "ID"),
        (["apply", "/does/not/exist.toml"], "/does/not/exist.toml does not exist"),
        (["--config", "/does/not/exist.toml", "status"], "/does/not/exist.toml does not exist"),
        (["nothing"], "nothing"),
        (["status", "--nothing"], "--nothing"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_a_usage_error(livedex: Terminal, arguments: list[str], says: str) -> None:
    """Exit 2, the argument named, nothing on stdout."""
    done = livedex(*arguments)
    assert (done.code, done.out) == (2, "")
    assert says in done.err


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"LIVEDEX_DATABSE_URL": "x"}, "LIVEDEX_DATABSE_URL is unknown: did you mean LIVEDEX_DATABASE_URL?"),
        ({"LIVEDEX_EMBEDDER": "magic"}, "LIVEDEX_EMBEDDER is wrong"),
        ({"LIVEDEX_HTTP_PORT": "many"}, "LIVEDEX_HTTP_PORT is wrong"),
        ({"LIVEDEX_DATABASE_URL": "postgresql//host/docs"}, "LIVEDEX_DATABASE_URL is wrong"),
        ({"LIVEDEX_CONFIG": "/does/not/exist.toml"}, "/does/not/exist.toml does not exist"),
    ],
)
def test_a_wrong_setting_is_a_usage_error(livedex: Terminal, environment: dict[str, str], says: str) -> None:
    """Exit 2 and one line that names the setting, and the nearest known one."""
    done = livedex("status", **environment)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[kafka]\nbootstrap_server = 'x'", "kafka.bootstrap_server in .* is unknown: did you mean bootstrap_servers?"),
        ("[collections.docs]\nmetrik = 'dot'", "collections.docs.metrik in .* is unknown: did you mean metric?"),
        ("[collections.docs]\nmetric = 'dott'", "collections.docs.metric in .* is wrong"),
        ("[collections.docs]\norphan_grace = 'soon'", "collections.docs.orphan_grace in .* is wrong"),
        ("[sources.t]\ncollection = 'absent'", "sources.t.collection is 'absent', which no"),
        ("colections = {}", "colections in .* is unknown: did you mean collections?"),
        ("not toml", "is no TOML"),
    ],
)
def test_a_wrong_line_in_the_settings_file_is_a_usage_error(livedex: Terminal, tmp_path: Path, text: str, says: str) -> None:
    """Exit 2 with the file and the setting."""
    path = tmp_path / "livedex.toml"
    path.write_text(text)
    done = livedex("status", LIVEDEX_CONFIG=str(path))
    assert (done.code, done.out) == (2, "")
    before, _, after = says.partition(" in .* ")
    assert before in done.err
    assert after in done.err
    assert "livedex.toml" in done.err or not after


@pytest.mark.accept
def test_what_does_not_answer_ends_a_command_after_ten_seconds(workers: Workers, tmp_path: Path) -> None:
    """One-shot commands give up on a closed port with exit 3 and one line that names the dependency."""
    config = workers.config("documents")
    document = tmp_path / "a.md"
    document.write_text("A text.")
    no_postgres = {"LIVEDEX_DATABASE_URL": f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"}
    no_kafka = {"LIVEDEX_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}
    port = {"LIVEDEX_HTTP_PORT": str(free_port())}
    cases = [
        ("postgres", ["status"], no_postgres),
        ("postgres", ["search", "x"], no_postgres | port),
        ("kafka", ["publish", str(document)], no_kafka),
        ("kafka", ["apply"], no_kafka),
    ]

    def run(case: tuple[str, list[str], dict[str, str]]) -> tuple[Any, float]:
        _, arguments, environment = case
        started = time.monotonic()
        done = workers.run(*arguments, config=config, timeout=240, **environment)
        return done, time.monotonic() - started

    with ThreadPoolExecutor(len(cases) + 1) as pool:
        prompt = pool.submit(run, ("", ["source", "list"], {}))  # how long a command takes now that waits for nothing
        for (dependency, arguments, _), (done, seconds) in zip(cases, pool.map(run, cases), strict=True):
            assert done.returncode == 3, (arguments, done.stderr)
            assert f"livedex: {dependency} " in done.stderr
            assert done.stdout == ""
            assert "Traceback" not in done.stderr
            assert 8 < seconds < 20 + 3 * prompt.result()[1], (arguments, seconds, prompt.result()[1])
    assert prompt.result()[0].returncode == 0


def wrong_urls(url: str) -> dict[str, str]:
    """Addresses of the same server that it refuses, by what it says."""
    parts = urlsplit(url)
    place = f"{parts.hostname}:{parts.port}"
    return {
        "password authentication failed": urlunsplit(parts._replace(netloc=f"{parts.username}:wrong@{place}")),
        "no password supplied": urlunsplit(parts._replace(netloc=f"{parts.username}@{place}")),
        'role "stranger" does not exist': urlunsplit(parts._replace(netloc=f"stranger@{place}")),
        'database "absent" does not exist': urlunsplit(parts._replace(path="/absent")),
        "invalid sslmode": f"{url}?sslmode=perhaps",
    }


def test_a_connection_that_is_set_up_wrongly_is_no_outage(livedex: Terminal, workers: Workers) -> None:
    """A wrong password, role, database or option ends a command at once with 1, and what to check."""
    for says, url in wrong_urls(workers.database_url).items():
        started = time.monotonic()
        done = livedex("status", LIVEDEX_DATABASE_URL=url)
        assert (done.code, done.out) == (1, "")
        assert says in done.err
        assert "in LIVEDEX_DATABASE_URL" in done.err
        assert len(done.err.splitlines()) == 1
        assert time.monotonic() - started < 5, "it must not be tried again"


def test_a_worker_ends_on_a_connection_that_is_set_up_wrongly(workers: Workers) -> None:
    """Both workers say so at the start, and do not wait for ever."""
    wrong = wrong_urls(workers.database_url)["password authentication failed"]
    settings = workers.settings(workers.config("documents"), database_url=wrong)
    for app in (IndexApp(settings), QueryApp(settings)):
        too_late = threading.Timer(20, app.stop.ask, ["it did not end by itself"])
        too_late.start()
        with pytest.raises(ConfigError, match="password authentication failed"):
            app.run()
        too_late.cancel()


def test_a_database_that_is_not_migrated_is_named(livedex: Terminal, empty_database_url: str) -> None:
    """Exit 1 and the remedy, for every command that needs the tables, a search in this process included."""
    port = str(free_port())
    for arguments in (["status"], ["apply"], ["source", "list"], ["dead-letters", "list"], ["wait", "t:0:0"], ["search", "x"]):
        done = livedex(*arguments, LIVEDEX_DATABASE_URL=empty_database_url, LIVEDEX_HTTP_PORT=port)
        assert (done.code, done.out) == (1, "")
        assert "run livedex migrate" in done.err


HTML = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>"
JSON = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"


@contextmanager
def listening(answer: bytes | None) -> Iterator[int]:
    """The port of another program, which answers each request so; None: it resets the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # closed: the test is over
                    return
                with connection:
                    connection.recv(2**16)
                    if answer is None:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    else:
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


STRANGERS = [
    ("no HTTP", b"SSH-2.0-OpenSSH_9.6\r\n", 3, "gives no answer"),
    ("hangs up", b"", 3, "gives no answer"),
    ("a page", HTML, 1, "is no query worker of livedex"),
    ("JSON", JSON % (b"200 OK", 2, b"{}"), 1, "is no query worker of livedex"),
    ("a list", JSON % (b"200 OK", 2, b"[]"), 1, "is no query worker of livedex"),
    ("its own error", JSON % (b"404 Not Found", 24, b'{"error": "no such page"}'[:24]), 1, "is no query worker of livedex"),
    ("a reset", None, 3, "gives no answer"),
]


@pytest.mark.parametrize(("answer", "code", "says"), [case[1:] for case in STRANGERS], ids=[case[0] for case in STRANGERS])
def test_another_program_on_the_port_is_told(livedex: Terminal, answer: bytes | None, code: int, says: str) -> None:
    """Whatever it answers, the command ends with one line that names the address."""
    with listening(answer) as port:
        for more in ([], ["--json"]):
            done = livedex("search", "x", *more, LIVEDEX_HTTP_PORT=str(port))
            assert (done.code, done.out) == (code, "")
            assert f"http://127.0.0.1:{port} " in done.err
            assert says in done.err
            assert "set LIVEDEX_HTTP_PORT" in done.err
            assert len(done.err.splitlines()) == 1


def test_a_query_worker_on_ipv6_is_asked(livedex: Terminal) -> None:
    """An address with colons is written as URLs have it."""
    done = livedex("search", "x", LIVEDEX_HTTP_HOST="::1")
    assert "no query worker at http://[::1]:" in done.err


def test_a_file_of_events_that_cannot_be_read_is_told(livedex: Terminal, tmp_path: Path) -> None:
    """One line with its name, and exit 2."""
    path = tmp_path / "events.jsonl"
    path.symlink_to("/proc/self/mem")  # not even root can read its beginning
    done = livedex("publish", str(path))
    assert (done.code, done.out) == (2, "")
    assert f"{path} cannot be read: " in done.err
    assert len(done.err.splitlines()) == 1


MISMATCHES = [
    ("model_revision = '2'", "hash", "its revision is '1', the generation has '2'"),
    ("dimension = 17", "hash", "its dimension is 16, the generation has 17"),
    (
        "query_prompt = 'query: ', model_revision = '2'",
        "hash",
        "the model 'hash-16' on this machine is not that of generation 1",
    ),
    ("encoder = 'torch'", "hash", "the embedder is hash, which is for tests"),
    ("dimension = 16", "torch", "was written by the hash encoder"),
]


@pytest.mark.parametrize(("change", "embedder", "says"), MISMATCHES)
def test_a_model_that_is_not_the_generations_is_refused(
    livedex: Terminal, workers: Workers, change: str, embedder: str, says: str
) -> None:
    """Another dimension, another revision, and an encoder of another kind end workers and searches, with what differs."""
    config = workers.config("documents", model="hash-16")
    settings = workers.settings(config, embedder=embedder)
    with connect(workers.database_url) as connection:
        apply.run(apply.plan(workers.settings(config), connection, topics=False))
        connection.execute(sql.SQL(f"update livedex.generation set {change}"))
    for app in (IndexApp(settings), QueryApp(settings)):
        too_late = threading.Timer(20, app.stop.ask, ["it did not end by itself"])
        too_late.start()
        with pytest.raises(ConfigError, match=says):
            app.run()
        too_late.cancel()
    environment = {"LIVEDEX_DATABASE_URL": workers.database_url, "LIVEDEX_EMBEDDER": embedder}
    done = livedex("search", "x", LIVEDEX_HTTP_PORT=str(free_port()), **environment)
    assert (done.code, done.out) == (1, "")
    assert says in done.err


def test_a_worker_that_is_set_up_wrongly_ends_with_one_line(workers: Workers) -> None:
    """As a process: exit 1, the line on stderr, nothing on stdout, no traceback."""
    config = workers.config("documents")
    with connect(workers.database_url) as connection:
        apply.run(apply.plan(workers.settings(config), connection, topics=False))
    done = workers.run("index", config=config, embedder="torch", LIVEDEX_METRICS_PORT="0")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("livedex: ")] == done.stderr.splitlines()[-1:]
