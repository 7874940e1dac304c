"""TLS and logins, at a real broker and a real Postgres that ask for them: what is right works, what is wrong is told."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest

from livedex.config import KafkaSettings
from livedex.dev.stack import Addresses
from support.contrib import PASSWORD as SUPERUSER_PASSWORD
from support.database import fresh_database
from support.kafka import Log
from support.secure import leaks
from support.secure.broker import PASSWORD, SecureBroker, secure_broker
from support.secure.certificates import CLIENT, KEY_PASSWORD, Certificates, Pair
from support.secure.server import PASSWORD as SERVER_PASSWORD
from support.secure.server import TEMPLATE, SecureServer, secure_server
from support.terminal import Done, Terminal
from support.waiting import until
from support.workers import Workers

WRONG = "no-password-of-anybody"
BY_CERTIFICATE = {"user": "by_certificate", "password": ""}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of an authority of this module's own."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[SecureBroker]:
    """A broker with TLS and logins."""
    with secure_broker(tmp_path_factory.mktemp("broker"), certificates) as own:
        yield own


@pytest.fixture(scope="module")
def server(certificates: Certificates) -> Iterator[SecureServer]:
    """A Postgres with TLS."""
    with secure_server(certificates) as own:
        yield own


@pytest.fixture
def livedex(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Done]:
    """Runs a command with a broker's address and a client's options in its settings file."""
    monkeypatch.setenv("COLUMNS", "1000")

    def run(*arguments: str, servers: str = "", client: dict[str, Any] | None = None, **environment: str) -> Done:
        path = write(tmp_path / "livedex.toml", servers, client or {})
        return Terminal({"LIVEDEX_CONFIG": str(path), "LIVEDEX_EMBEDDER": "hash"}, monkeypatch, capsys)(
            *arguments, **environment
        )

    return run


def write(path: Path, servers: str, client: dict[str, Any], topic: str = "company.docs") -> Path:
    """A settings file."""
    options = "\n".join(f"{name} = {json.dumps(value)}" for name, value in client.items())
    path.write_text(
        f'[kafka]\nbootstrap_servers = "{servers}"\n[kafka.client]\n{options}\n'
        f'[collections.default]\nmodel = "hash-16"\n[sources."{topic}"]\ncollection = "default"\n'
    )
    return path


# everything, over TLS


@pytest.mark.accept
def test_everything_works_over_tls(
    broker: SecureBroker, server: SecureServer, certificates: Certificates, tmp_path: Path
) -> None:
    """With SCRAM over TLS to Kafka and verify-full to Postgres, by password and by certificate, a document is published, found
    over HTTP and in SQL, and every command works; no connection goes in the clear.
    """
    config = write(tmp_path / "livedex.toml", broker.servers("LOGIN"), broker.login(group_id="everything"))
    (tmp_path / "note.md").write_text("Apples grow on trees.")
    pair = certificates.client()
    with fresh_database(server.plain.url, TEMPLATE) as plain, Workers(
        Addresses(kafka_bootstrap_servers=broker.servers("LOGIN"), database_url=plain), plain, tmp_path
    ) as workers:  # fmt: skip
        name = plain.rpartition("/")[2]
        admin = server.url(name, user="postgres", password=SUPERUSER_PASSWORD)
        indexer = server.url(name)
        querier = server.url(name, **BY_CERTIFICATE, sslcert=str(pair.certificate), sslkey=str(pair.key))

        def run(*arguments: str, url: str = admin, **environment: Any) -> str:
            done = workers.run(*arguments, config=config, LIVEDEX_DATABASE_URL=url, **environment)
            assert done.returncode == 0, (arguments, done.stderr)
            return done.stdout

        run("migrate")
        run("apply")
        index = workers.start("index", config, LIVEDEX_DATABASE_URL=indexer)
        serve = workers.start("serve", config, LIVEDEX_DATABASE_URL=querier)
        run("publish", str(tmp_path / "note.md"), "--wait")
        port = serve.address.rpartition(":")[2]
        assert "Apples grow" in run("search", "apples", "--mode", "text", "--json", LIVEDEX_HTTP_PORT=port)
        assert "Apples grow" in run("search", "apples", "--json")  # in its own process
        assert '"company.docs"' in run("status", "--json")
        run("dead-letters", "list", url=indexer)
        asserted(workers.run("doctor", config=config, LIVEDEX_DATABASE_URL=admin).stdout)
        assert in_the_clear(server) == []
        secrets = (PASSWORD, SERVER_PASSWORD, quote(SERVER_PASSWORD, safe=""), SUPERUSER_PASSWORD)
        for worker in (index, serve):
            leaks.assert_none(leaks.surfaces(worker), secrets)
        with psycopg.connect(admin) as connection:
            found = connection.execute("select document_id from livedex.search('apples grow', timeout => '20 s')").fetchall()
        assert [row[0] for row in found] == ["note.md"]
        run("delete", "note.md", "--wait")
        assert (index.stop(), serve.stop()) == (0, 0)


def asserted(doctor: str) -> None:
    """Kafka, Postgres and the topics are there; the buffers of this server are small, which is not what is tested."""
    told = {line.split()[1]: line.split()[0] for line in doctor.splitlines()}
    assert [told[name] for name in ("kafka", "postgres", "topics", "migrations")] == ["ok"] * 4, doctor


def in_the_clear(server: SecureServer) -> list[str]:
    """Who of livedex is connected without TLS."""
    with psycopg.connect(server.plain.url) as connection:
        rows = connection.execute(
            "select usename, ssl from pg_stat_activity join pg_stat_ssl using (pid) where usename in (%s, 'by_certificate')",
            (CLIENT,),
        ).fetchall()
    assert {name for name, _ in rows} == {CLIENT, "by_certificate"}
    return [name for name, secure in rows if not secure]


# Kafka

Options = Callable[[SecureBroker, Certificates], dict[str, Any]]


def by(pair: Pair, **more: str) -> dict[str, str]:
    """Options that show a client's certificate."""
    return {"ssl_certfile": str(pair.certificate), "ssl_keyfile": str(pair.key), **more}


def written(certificates: Certificates, password: str) -> str:
    """A file with a password."""
    path = certificates.authority.with_name("password")
    path.write_text(f"{password}\n")
    return str(path)


ACCEPTED: dict[str, tuple[str, Options]] = {
    "an authority": ("TLS", lambda broker, _: broker.tls()),
    "a client's certificate": ("MUTUAL", lambda broker, made: broker.tls(**by(made.client()))),
    "an encrypted key": (
        "MUTUAL",
        lambda broker, made: broker.tls(
            **{**by(pair := made.client()), "ssl_keyfile": str(made.encrypted(pair)), "ssl_password": KEY_PASSWORD}
        ),
    ),
    "PLAIN": ("LOGIN", lambda broker, _: broker.login("PLAIN")),
    "a password file": (
        "LOGIN",
        lambda broker, made: {
            **{name: value for name, value in broker.login().items() if name != "sasl_plain_password"},
            "sasl_plain_password_file": written(made, PASSWORD),
        },
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_kafka_is_reached(name: str, broker: SecureBroker, certificates: Certificates, livedex: Callable[..., Done]) -> None:
    """Over TLS, with a client's certificate, or with a login."""
    listener, options = ACCEPTED[name]
    with Log(broker.plain.settings) as log:
        topic = log.topic()
        done = livedex("delete", "a", "--topic", topic, servers=broker.servers(listener), client=options(broker, certificates))
        assert (done.code, done.out) == (0, f"{topic}:0:0\n"), done.err


LOCAL = "127.0.0.1"
REFUSED: dict[str, tuple[str, Options, str]] = {
    "another host": ("TLS@127.0.0.1", lambda broker, _: broker.tls(), "is made out to another host"),
    "a foreign authority": (
        "TLS",
        lambda broker, made: broker.tls(ssl_cafile=str(made.foreign_authority)),
        "is not of an authority in",
    ),
    "the machine's authorities": ("TLS", lambda _, __: {"security_protocol": "SSL"}, "let kafka.client.ssl_cafile name"),
    "a certificate that ended": ("ENDED", lambda broker, _: broker.tls(), "renew it at the broker"),
    "no TLS": ("TLS", lambda _, __: {}, "kafka's listener wants TLS: set kafka.client.security_protocol"),
    "no certificate": ("MUTUAL", lambda broker, _: broker.tls(), "certificate required): let kafka.client.ssl_certfile"),
    "a foreign certificate": (
        "MUTUAL",
        lambda broker, made: broker.tls(**by(made.client("stranger", foreign=True))),
        "refuses this client's certificate",
    ),
    "a client's certificate that ended": (
        "MUTUAL",
        lambda broker, made: broker.tls(**by(made.client("late", ended=True))),
        "refuses this client's certificate",
    ),
    "a wrong password": (
        "LOGIN",
        lambda broker, _: broker.login(password=WRONG),
        "refuses the login of 'livedex' by SCRAM-SHA-512: check sasl_plain_username, sasl_plain_password",
    ),
    "a wrong password of PLAIN": (
        "LOGIN",
        lambda broker, _: broker.login("PLAIN", password=WRONG),
        "refuses the login of 'livedex' by PLAIN",
    ),
    "another mechanism": ("LOGIN", lambda broker, _: broker.login("SCRAM-SHA-256"), "does not take SCRAM-SHA-256"),
    "a login where none is": ("TLS", lambda broker, _: broker.login(), "asks for no login"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_kafka_refuses(name: str, broker: SecureBroker, certificates: Certificates, livedex: Callable[..., Done]) -> None:
    """A wrong setting ends a command at once with 1, and the remedy; no password is shown."""
    place, options, says = REFUSED[name]
    listener, _, host = place.partition("@")
    servers = broker.servers(listener, **({"host": host} if host else {}))
    done = livedex("delete", "a", "--topic", "t", servers=servers, client=options(broker, certificates))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("livedex: ")
    assert says in done.err
    assert WRONG not in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("listener", ["LOGIN", "PLAIN"])
def test_another_protocol_is_hinted_at(
    listener: str, broker: SecureBroker, livedex: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener that closes the connection without a word is waited for, with a hint that the protocol may be another."""
    monkeypatch.setattr("livedex.cli.session.PATIENCE", 0.0)
    servers = broker.plain.bootstrap_servers if listener == "PLAIN" else broker.servers(listener)
    done = livedex("delete", "a", "--topic", "t", servers=servers, client=broker.tls(bootstrap_timeout_ms=1000))
    assert done.code == 3
    assert f"kafka at {servers} does not answer" in done.err
    assert "see whether its listener speaks SSL" in done.err


# Postgres

Url = Callable[[SecureServer, Certificates], dict[str, str]]


def cert(pair: Pair, **more: str) -> dict[str, str]:
    """Parameters of a URL that show a client's certificate."""
    return {**BY_CERTIFICATE, "sslcert": str(pair.certificate), "sslkey": str(pair.key), **more}


REFUSED_URLS: dict[str, tuple[Url, str]] = {
    "another host": (lambda _, __: {"host": LOCAL}, "use a host that the server's certificate has"),
    "a foreign authority": (lambda _, made: {"sslrootcert": str(made.foreign_authority)}, "let sslrootcert name the authority"),
    "no authority": (lambda _, __: {"sslrootcert": "/nowhere.pem"}, "let sslrootcert name the certificate"),
    "no TLS": (lambda _, __: {"sslmode": "disable"}, "set sslmode=verify-full"),
    "a wrong password": (lambda _, __: {"password": WRONG}, "check host, port, database, user and password"),
    "no certificate": (lambda _, __: {**BY_CERTIFICATE}, "let sslcert and sslkey name a valid certificate"),
    "a foreign certificate": (
        lambda _, made: cert(made.client("stranger", foreign=True)),
        "let sslcert and sslkey name a valid certificate",
    ),
    "a client's certificate that ended": (
        lambda _, made: cert(made.client("late", ended=True)),
        "let sslcert and sslkey name a valid certificate",
    ),
    "another's certificate": (
        lambda _, made: cert(made.client("other", common_name="other")),
        "let sslcert and sslkey name a valid certificate",
    ),
    "a key that does not fit": (
        lambda _, made: cert(made.client(), sslkey=str(made.client("other").key)),
        "correct sslcert, sslkey and sslpassword",
    ),
    "a key under another password": (
        lambda _, made: cert(pair := made.client(), sslkey=str(made.encrypted(pair)), sslpassword=WRONG),
        "correct sslcert, sslkey and sslpassword",
    ),
    "another way to log in": (lambda _, __: {"require_auth": "md5"}, "let the server ask for scram-sha-256"),
}


@pytest.mark.parametrize("name", REFUSED_URLS)
def test_postgres_refuses(name: str, server: SecureServer, certificates: Certificates, livedex: Callable[..., Done]) -> None:
    """A wrong setting ends a command at once with 1, and the remedy; no password is shown."""
    options, says = REFUSED_URLS[name]
    done = livedex("status", LIVEDEX_DATABASE_URL=server.url(TEMPLATE, **options(server, certificates)))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("livedex: postgres refuses the connection: ")
    assert says in done.err
    assert WRONG not in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("options", [{}, {"channel_binding": "require", "require_auth": "scram-sha-256"}])
def test_postgres_is_reached(server: SecureServer, livedex: Callable[..., Done], options: dict[str, str]) -> None:
    """By a password that crosses no network, over TLS that is verified, and bound to that connection where asked for."""
    done = livedex("migrate", "--check", LIVEDEX_DATABASE_URL=server.url(TEMPLATE, user="postgres",
                   password=SUPERUSER_PASSWORD, **options))  # fmt: skip
    assert done.code == 0, done.err


def test_a_server_whose_certificate_ended(
    server: SecureServer, certificates: Certificates, livedex: Callable[..., Done]
) -> None:
    """It is refused, and a new one is taken without any restart."""
    url = server.url(TEMPLATE, user="postgres", password=SUPERUSER_PASSWORD)
    try:
        server.use(certificates.server("ended-postgres", ended=True))
        until(lambda: livedex("migrate", "--check", LIVEDEX_DATABASE_URL=url).code == 1, what="the server to show it")
        done = livedex("migrate", "--check", LIVEDEX_DATABASE_URL=url)
        assert done.code == 1
        assert "see that it has not ended" in done.err
    finally:
        server.use(certificates.server("postgres"))
    until(lambda: livedex("migrate", "--check", LIVEDEX_DATABASE_URL=url).code == 0, what="the new certificate")


# workers


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("index", "kafka"),
        pytest.param("index", "postgres", marks=pytest.mark.accept),
        pytest.param("serve", "postgres", marks=pytest.mark.accept),
    ],
)
def test_wrong_settings_end_a_worker(
    command: str, wrong: str, broker: SecureBroker, server: SecureServer, tmp_path: Path
) -> None:
    """At its start, with 1 and the remedy."""
    client = broker.login(password=WRONG if wrong == "kafka" else PASSWORD)
    config = write(tmp_path / "livedex.toml", broker.servers("LOGIN"), client)
    with fresh_database(server.plain.url, TEMPLATE) as plain:
        url = server.url(plain.rpartition("/")[2], user="postgres", password=SUPERUSER_PASSWORD,
                         host=LOCAL if wrong == "postgres" else "localhost")  # fmt: skip
        with Workers(Addresses(kafka_bootstrap_servers=broker.servers("LOGIN"), database_url=url), url, tmp_path) as workers:
            done = workers.run(command, config=config, LIVEDEX_HTTP_PORT="0", LIVEDEX_METRICS_PORT="0")
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        "livedex: kafka refuses the login" if wrong == "kafka" else "livedex: postgres refuses the connection"
    )
    assert "Traceback" not in done.stderr
    assert WRONG not in done.stderr


@pytest.mark.accept
def test_a_running_worker_outlives_a_changed_password(broker: SecureBroker, server: SecureServer, tmp_path: Path) -> None:
    """While the broker refuses its password it is not ready and says why; when that is right again it goes on, and meanwhile no
    event was lost.
    """
    with fresh_database(server.plain.url, TEMPLATE) as url, Log(broker.plain.settings) as log, Workers(
        Addresses(kafka_bootstrap_servers=broker.servers("LOGIN"), database_url=url), url, tmp_path
    ) as workers:  # fmt: skip
        topic = log.topic()
        config = write(tmp_path / "livedex.toml", broker.servers("LOGIN"), broker.login(group_id=topic), topic)
        assert workers.run("apply", config=config).returncode == 0
        worker = workers.start("index", config)
        log.send(topic, {"id": "a", "text": "one"})
        workers.caught_up(topic, {0: 1})
        try:
            broker.set_password("another-password-of-the-broker")
            until(lambda: "why='kafka does not answer: SaslAuthenticationFailedError" in worker.log(), timeout=60,
                  what="the worker to say why")  # fmt: skip
            answer = httpx.get(f"{worker.address}/readyz", trust_env=False)
            assert (answer.status_code, answer.json()["waiting_for"]) == (503, ["kafka"])
            log.send(topic, {"id": "b", "text": "two"})
        finally:
            broker.set_password(PASSWORD)
        workers.caught_up(topic, {0: 2})
        until(worker.ready, what="the worker to be ready")
        assert PASSWORD not in worker.log()
        assert "Traceback" not in worker.log()
        assert len(worker.log().splitlines()) < 60, "it must not repeat what it said"
        assert worker.stop() == 0


def test_clients_that_could_not_be_opened_leave_nothing(broker: SecureBroker) -> None:
    """A worker that waits for Kafka for a day has no more threads than before."""
    import threading

    from livedex.errors import ConfigError, LivedexError
    from livedex.kafka import open_admin

    def names() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("kafka")]

    before = names()
    wrong = KafkaSettings(bootstrap_servers=broker.servers("LOGIN"), client=broker.login(password=WRONG))
    away = KafkaSettings(bootstrap_servers="127.0.0.1:1", client={"bootstrap_timeout_ms": 500})
    for settings, kind in ((wrong, ConfigError), (away, LivedexError)):
        with pytest.raises(kind):
            open_admin(settings)
    assert names() == before
