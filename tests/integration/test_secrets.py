"""Passwords, tokens and keys: whatever works or fails, none is shown."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from livedex.config import KafkaSettings, Settings
from livedex.dev.stack import Addresses
from support.embedding_server import MODEL, EmbeddingServer
from support.kafka import Log
from support.secure import leaks
from support.terminal import Done, Terminal
from support.waiting import until
from support.workers import Workers, free_port

DATABASE = "secret-of-the-database-01"
LIBPQ = "secret-of-libpq-02"
KAFKA = "secret-of-kafka-03"
KEY = "secret-of-a-key-04"
API = "secret-of-the-api-05"
GUESS = "secret-that-was-guessed-06"
ENCODER = "secret-of-the-encoder-07"
WIRE = "secret-of-the-endpoint-08"
TEXT = "what-stands-in-a-document-09"
SECRETS = (DATABASE, LIBPQ, KAFKA, KEY, API, GUESS, ENCODER, WIRE)


@pytest.fixture
def role(stack: Addresses, database_url: str) -> Iterator[str]:
    """The URL of a role that may do everything, and that every password lets in."""
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        connection.execute("drop role if exists keeper_of_secrets")
        connection.execute("create role keeper_of_secrets login superuser")
        parts = urlsplit(database_url)
        yield parts._replace(netloc=f"keeper_of_secrets:{DATABASE}@{parts.hostname}:{parts.port}").geturl()
        connection.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = 'keeper_of_secrets'")
        connection.execute("drop owned by keeper_of_secrets")
        connection.execute("drop role keeper_of_secrets")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Files with the secrets, and the settings that name them."""
    contents = {
        "LIVEDEX_API_TOKENS_FILE": f'[tokens.site]\ntoken = "{API}"\ncollections = ["*"]\noperator = true\n',
        "LIVEDEX_API_TOKEN_FILE": API,
        "LIVEDEX_EMBEDDER_TOKEN_FILE": ENCODER,
        "LIVEDEX_WIRE_PASSWORD_FILE": WIRE,
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    return {name: str(tmp_path / name) for name in contents}


@pytest.mark.accept
def test_workers_show_no_secret(workers: Workers, log: Log, role: str, files: dict[str, str]) -> None:
    """Neither in their logs nor over HTTP nor in the list of processes, while everything works, while the embedding server and
    callers are refused, and while Postgres is away. Neither texts nor queries are in the logs.
    """
    topic = log.topic()
    server = EmbeddingServer(token=ENCODER)
    with server.running(server.inference()):
        address = server.address.replace("http://", f"http://user:{KEY}@")
        environment: dict[str, Any] = {
            **files, "LIVEDEX_DATABASE_URL": role, "PGPASSWORD": LIBPQ, "LIVEDEX_EMBEDDER": "http",
            "LIVEDEX_EMBEDDER_URL": server.address, "LIVEDEX_LOG_FORMAT": "json",
        }  # fmt: skip
        config = workers.config(topic, model=MODEL)
        assert workers.run("apply", config=config, **environment).returncode == 0
        index = workers.start("index", config, **environment)
        serve = workers.start("serve", config, **environment, LIVEDEX_WIRE_PORT=str(free_port()))
        log.send(topic, {"id": "a", "text": TEXT})
        workers.caught_up(topic, {0: 1})
        shown = {f"index: {name}": text for name, text in leaks.surfaces(index).items()}
        shown |= {f"serve: {name}": text for name, text in leaks.surfaces(serve, {"Authorization": f"Bearer {API}"}).items()}
        shown |= {f"guess: {name}": text for name, text in leaks.surfaces(serve, {"Authorization": f"Bearer {GUESS}"}).items()}
        assert '"document_id":"a"' in shown[f"serve: {leaks.SEARCH}"], "the token must have been taken"
        assert "invalid_token" in shown[f"guess: {leaks.SEARCH}"], "the guess must have been refused"
        server.token = "another"
        log.send(topic, {"id": "b", "text": "two"})
        until(lambda: "LIVEDEX_EMBEDDER_TOKEN_FILE" in index.log(), what="the worker to say that it is refused", timeout=60)
        assert address not in index.log()
        connections = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'keeper_of_secrets'"
        workers.execute("alter role keeper_of_secrets nologin", connections)
        try:
            until(lambda: '"dependency": "postgres", "why"' in index.log() and '"postgres", "why"' in serve.log(), timeout=60,
                  what="both to miss Postgres")  # fmt: skip
            shown |= {f"away: {name}": text for name, text in leaks.surfaces(serve, {"Authorization": f"Bearer {API}"}).items()}
        finally:
            workers.execute("alter role keeper_of_secrets login")
        shown |= {"index, later": index.log(), "serve, later": serve.log()}
        assert (index.stop(), serve.stop()) == (0, 0)
        logs = {"index, at last": index.log(), "serve, at last": serve.log()}
        leaks.assert_none(shown | logs, SECRETS)
        leaks.assert_none(logs, [TEXT, leaks.QUESTION])


@pytest.fixture
def livedex(
    stack: Addresses, role: str, files: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Runs a command among secrets, and looks for them in what it says."""
    environment = {
        **files, "LIVEDEX_DATABASE_URL": role, "PGPASSWORD": LIBPQ, "LIVEDEX_EMBEDDER": "hash",
        "LIVEDEX_KAFKA_BOOTSTRAP_SERVERS": stack.kafka_bootstrap_servers, "COLUMNS": "1000",
    }  # fmt: skip

    def run(*arguments: str, **more: str) -> Done:
        done = Terminal(environment, monkeypatch, capsys)(*arguments, **more)
        leaks.assert_none({f"{arguments}: stdout": done.out, f"{arguments}: stderr": done.err}, SECRETS)
        return done

    return run


def test_commands_show_no_secret(livedex: Callable[..., Done], workers: Workers, log: Log) -> None:
    """Where they succeed."""
    config = str(workers.config(log.topic()))
    commands = (["migrate"], ["apply", config], ["doctor"], ["status", "--json"], ["search", "x", "--json"],
                ["source", "list"], ["dead-letters", "list"], ["generation", "list"])  # fmt: skip
    for arguments in commands:
        done = livedex(*arguments, LIVEDEX_CONFIG=config, LIVEDEX_HTTP_PORT=str(free_port()))
        assert done.code == 0 or arguments == ["doctor"], (arguments, done.err)


MISTAKES: dict[str, dict[str, str]] = {
    "nobody listens": {"LIVEDEX_DATABASE_URL": f"postgresql://user:{DATABASE}@127.0.0.1:1/db?connect_timeout=1"},
    "an unknown host": {"LIVEDEX_DATABASE_URL": f"postgresql://user:{DATABASE}@nowhere.invalid/db"},
    "a sign that is not escaped": {"LIVEDEX_DATABASE_URL": f"postgresql://user:{DATABASE}#x@127.0.0.1/db"},
    "an option that is none": {"LIVEDEX_DATABASE_URL": f"postgresql://user@127.0.0.1/db?passwort={DATABASE}"},
    "a key that is none": {"LIVEDEX_DATABASE_URL": f"host=127.0.0.1 password={DATABASE} x"},
    "a quote that does not end": {"LIVEDEX_DATABASE_URL": f"host=127.0.0.1 password='{DATABASE}"},
    "a mode that is none": {"LIVEDEX_DATABASE_URL": f"postgresql://user:{DATABASE}@127.0.0.1/db?sslmode=x"},
    "a standby that is none": {"LIVEDEX_STANDBY_URLS": f"host=a password={DATABASE}"},
    "an embedding server that is none": {"LIVEDEX_EMBEDDER_URL": f"ftp://user:{KEY}@127.0.0.1/"},
    "a name that is wrong": {"LIVEDEX_DATABASE_PASSWORD": DATABASE},
    "a port that is a password": {"LIVEDEX_HTTP_PORT": KEY},
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_show_no_secret(name: str, livedex: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong settings are told without their values where these may be secret."""
    monkeypatch.setattr("livedex.cli.session.PATIENCE", 0.0)
    assert livedex("status", "--json", **MISTAKES[name]).code in (1, 2, 3)


FILES = {
    "a line that breaks": f'[kafka.client]\nsasl_plain_password = "{KAFKA}\n',
    "a password without quotes": f"[kafka.client]\nsasl_plain_password = {KAFKA}\n",
    "a list": f'[kafka]\nclient = ["{KAFKA}"]\n',
    "a text": f'[kafka]\nclient = "{KAFKA}"\n',
    "a certificate that is not there": (
        f'[kafka.client]\nsecurity_protocol = "SSL"\nssl_password = "{KEY}"\nssl_certfile = "/nowhere"\n'
    ),
    "an option that is none": f'[kafka.client]\nsasl_password = "{KAFKA}"\n',
    "no protocol": f'[kafka.client]\nsasl_plain_password = "{KAFKA}"\n',
    "a protocol that is none": f'[kafka.client]\nsecurity_protocol = "TLS"\nsasl_plain_password = "{KAFKA}"\n',
    "a broker without logins": (
        '[kafka.client]\nsecurity_protocol = "SASL_PLAINTEXT"\nsasl_mechanism = "PLAIN"\nbootstrap_timeout_ms = 1000\n'
        f'sasl_plain_username = "user"\nsasl_plain_password = "{KAFKA}"\n'
    ),
    "a mechanism that is none": (
        '[kafka.client]\nsecurity_protocol = "SASL_PLAINTEXT"\nsasl_mechanism = "PLAINER"\nbootstrap_timeout_ms = 1000\n'
        f'sasl_plain_username = "user"\nsasl_plain_password = "{KAFKA}"\n'
    ),
    "a proxy": f'[kafka.client]\nproxy_url = "socks5://user:{KAFKA}@127.0.0.1:1"\nbootstrap_timeout_ms = 1000\n',
}


@pytest.mark.parametrize("name", FILES)
def test_wrong_files_show_no_secret(
    name: str, livedex: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Kafka's options, however they are wrong."""
    monkeypatch.setattr("livedex.cli.session.PATIENCE", 0.0)
    path = tmp_path / "livedex.toml"
    path.write_text(FILES[name])
    done = livedex("delete", "x", "--topic", "y", LIVEDEX_CONFIG=str(path))
    assert done.code in (1, 2, 3), done.err
    assert done.err


def test_what_settings_look_like_has_no_secret() -> None:
    """In a debugger, in an error of a test, or in whatever prints them."""
    settings = Settings(
        kafka=KafkaSettings(client={"sasl_plain_password": KAFKA}),
        database_url=f"postgresql://user:{DATABASE}@host/db",
        standby_urls=f"postgresql://user:{DATABASE}@standby/db",
        embedder_url=f"http://user:{KEY}@host/",
    )
    leaks.assert_none({"repr": repr(settings), "str": str(settings)}, SECRETS)
