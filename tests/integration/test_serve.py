"""How the query worker starts: what it waits for, and what it refuses."""

import socket
import threading
from pathlib import Path

import httpx
import pytest

from livedex.config import Settings
from livedex.errors import ConfigError
from livedex.index.app import IndexApp
from livedex.query.app import QueryApp
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


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_machines_are_not_served_without_tokens(workers: Workers, host: str) -> None:
    """An address that is not loopback is refused before anything listens."""
    with pytest.raises(ConfigError, match="LIVEDEX_HTTP_HOST"):
        QueryApp(Settings(database_url=workers.database_url, embedder="hash", http_port=0, http_host=host))


def test_tokens_are_not_ignored(workers: Workers, tmp_path: Path) -> None:
    """A file of API tokens that this version would not check is refused."""
    with pytest.raises(ConfigError, match="LIVEDEX_API_TOKENS_FILE"):
        QueryApp(Settings(database_url=workers.database_url, embedder="hash", http_port=0, api_tokens_file=tmp_path))


def test_a_busy_port_is_one_line_and_exit_1(workers: Workers) -> None:
    """The line names the address and the setting that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another with"
        done = workers.run("serve", LIVEDEX_HTTP_PORT=str(port))
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"livedex: {line} LIVEDEX_HTTP_PORT\n")
        with pytest.raises(ConfigError, match=f"{line} LIVEDEX_METRICS_PORT"):
            IndexApp(Settings(database_url=workers.database_url, embedder="hash", metrics_port=port))
