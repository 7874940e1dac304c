"""How the query worker starts: what it waits for, and what it refuses."""

import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from livedex.catalogue import Generation, open_checked
from livedex.config import EmbedderName, Settings
from livedex.encoders import Encoder
from livedex.errors import ConfigError
from livedex.index.app import IndexApp
from livedex.query import active
from livedex.query.app import QueryApp
from support.synthetic import connection_to, create_collection
from support.waiting import until
from support.workers import Workers, free_port


def test_a_worker_whose_postgres_is_down_is_alive_and_says_so(workers: Workers) -> None:
    """It starts, stays alive and not ready, answers searches with 503 that names postgres, and stops when asked."""
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    app = QueryApp(Settings(database_url=url, embedder="hash", http_port=0))
    thread = threading.Thread(target=app.run)
    thread.start()
    try:
        with httpx.Client(base_url=f"http://{app.http.address}", timeout=20, trust_env=False) as client:
            until(lambda: app.metrics.registry.get_sample_value("livedex_dependency_up", {"dependency": "postgres"}) == 0)
            assert client.get("/healthz").status_code == 200
            waits = client.get("/readyz")
            assert waits.status_code == 503
            assert waits.json()["waiting_for"] == ["embedder", "postgres"]
            refused = client.post("/v1/search", json={"query": "x"})
            assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
            assert refused.json()["dependency"] == "postgres"
            assert refused.headers["retry-after"] == "1"
            assert client.get("/metrics").status_code == 200
            assert thread.is_alive()
    finally:
        app.stop.ask("the test is over")
        thread.join(10)
    assert not thread.is_alive()


class Opener:
    """Opens encoders; that of `slow` only when told, that of `broken` not before it is mended."""

    def __init__(self) -> None:
        self.told = threading.Event()
        self.mended = False
        self.opened: list[str] = []

    def __call__(self, embedder: EmbedderName, generation: Generation) -> Encoder:
        """For QueryApp."""
        self.opened.append(generation.identity.model)
        if generation.collection == "slow":
            assert self.told.wait(60)
        if generation.collection == "broken" and not self.mended:
            raise RuntimeError("no memory")
        return open_checked(embedder, generation)


def add_collection(url: str, name: str, model: str) -> None:
    """As `livedex apply` does while the worker runs."""
    with connection_to(url) as connection:
        create_collection(connection, name, model=model)


def test_a_collection_that_comes_later_delays_no_search(workers: Workers) -> None:
    """While its model is being loaded, searches there are 503 that names the embedder, others are answered, and the worker is
    ready; then it is searched. A collection with a model that is open already loads nothing.
    """
    add_collection(workers.database_url, "default", "hash-16")
    opener = Opener()
    app = QueryApp(Settings(database_url=workers.database_url, embedder="hash", http_port=0), open_encoder=opener)
    with workers.in_thread(app) as address, httpx.Client(base_url=address, timeout=5, trust_env=False) as client:

        def ask(collection: str) -> httpx.Response:
            return client.post("/v1/search", json={"query": "x", "mode": "vector", "collection": collection})

        assert ask("default").status_code == 200
        add_collection(workers.database_url, "slow", "hash-8")
        refused = ask("slow")
        assert refused.status_code == 503, "a new collection is noticed at once"
        assert refused.json()["dependency"] == "embedder"
        assert "collection slow is not ready" in refused.json()["detail"]
        until(lambda: "hash-8" in opener.opened, what="the model to be loaded")
        assert ask("default").status_code == 200
        assert client.get("/readyz").status_code == 200
        opener.told.set()
        until(lambda: ask("slow").status_code == 200, what="the new collection to be searched")
        add_collection(workers.database_url, "same", "hash-16")
        until(lambda: ask("same").status_code == 200, what="the collection with the same model to be searched")
    assert opener.opened == ["hash-16", "hash-8"]


def test_a_model_that_does_not_load_later_stops_nothing(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever loading raises, the worker runs on, says why to who searches there, and tries again after a while."""
    monkeypatch.setattr(active, "RETRY_AFTER", 0.0)
    add_collection(workers.database_url, "default", "hash-16")
    opener = Opener()
    app = QueryApp(Settings(database_url=workers.database_url, embedder="hash", http_port=0), open_encoder=opener)
    with workers.in_thread(app) as address, httpx.Client(base_url=address, timeout=5, trust_env=False) as client:
        add_collection(workers.database_url, "broken", "hash-8")
        body = {"query": "x", "mode": "vector", "collection": "broken"}
        until(lambda: "RuntimeError" in client.post("/v1/search", json=body).text, what="the reason")
        assert client.get("/readyz").status_code == 200
        opener.mended = True
        until(lambda: client.post("/v1/search", json=body).status_code == 200, what="the collection to be searched")


def test_errors_that_pass_do_not_end_a_running_worker(workers: Workers) -> None:
    """An error of Postgres that is no outage makes the worker not ready, and it goes on when it is over."""
    app = QueryApp(Settings(database_url=workers.database_url, embedder="hash", http_port=0))
    with workers.in_thread(app):
        with workers.connect() as connection:
            connection.execute("alter table livedex.generation rename to elsewhere")
        until(lambda: app.health.waiting_for == ["postgres"], what="the worker to notice")
        with workers.connect() as connection:
            connection.execute("alter table livedex.elsewhere rename to generation")
        until(lambda: not app.health.waiting_for, what="the worker to be ready again")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_machines_are_not_served_without_tokens(workers: Workers, host: str) -> None:
    """An address that is not loopback is refused before anything listens."""
    with pytest.raises(ConfigError, match=r"LIVEDEX_HTTP_HOST.*LIVEDEX_API_TOKENS_FILE"):
        QueryApp(Settings(database_url=workers.database_url, embedder="hash", http_port=0, http_host=host))


@pytest.mark.parametrize("command", ["index", "serve"])
def test_a_worker_warns_of_a_secret_that_all_may_read(command: str, workers: Workers, tmp_path: Path) -> None:
    """When it starts, with the command that mends it."""
    path = tmp_path / "wire-password.txt"
    path.write_text("of-the-endpoint-0123456789abcdef")
    path.chmod(0o604)
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so that it ends
        port = str(taken.getsockname()[1])
        ports: dict[str, Any] = {"LIVEDEX_HTTP_PORT": port, "LIVEDEX_METRICS_PORT": port}
        done = workers.run(command, LIVEDEX_WIRE_PASSWORD_FILE=str(path), LIVEDEX_LOG_FORMAT="json", **ports)
    assert '"event": "secrets.readable_by_all"' in done.stderr
    assert f"chmod o-rwx {path}" in done.stderr
    assert "of-the-endpoint" not in done.stderr


def test_a_busy_port_is_one_line_and_exit_1(workers: Workers) -> None:
    """The line names the address and the setting that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another with"
        done = workers.run("serve", LIVEDEX_HTTP_PORT=str(port))
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"livedex: {line} LIVEDEX_HTTP_PORT\n")
        with pytest.raises(ConfigError, match=f"{line} LIVEDEX_METRICS_PORT"):
            IndexApp(Settings(database_url=workers.database_url, embedder="hash", metrics_port=port))
