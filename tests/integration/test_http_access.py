"""API tokens over HTTP: who may search what, and what is told to those who may not."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from livedex.config import Settings
from livedex.dev.stack import Addresses
from livedex.errors import ConfigError
from livedex.query.app import QueryApp
from support.served import TEXTS, TOPIC, Served, is_problem, names, serving
from support.terminal import Terminal
from support.waiting import until
from support.workers import Workers

ONE, ALL, OPERATOR = "one-0123456789abcdef", "all-0123456789abcdef", "operator-0123456789abcdef"
FILE = f"""
[tokens.one]
token = "{ONE}"
collections = ["docs"]

[tokens.all]
token = "{ALL}"
collections = ["*"]

[tokens.operator]
token = "{OPERATOR}"
collections = []
operator = true
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokens file."""
    path = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    path.write_text(FILE)
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def served(stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory, file: Path) -> Iterator[Served]:
    """A query worker with two collections that asks for tokens."""
    folder = tmp_path_factory.mktemp("http")
    with serving(stack, template, folder, collections=("docs", "secrets"), api_tokens_file=file) as worker:
        yield worker


def ask(served: Served, token: str | None, collection: str = "docs", **body: object) -> httpx.Response:
    """POST a search with this token."""
    content = {"query": TEXTS["apples"], "collection": collection, **body}
    return served.client.post("/v1/search", json=content, headers=bearer(token))


def bearer(token: str | None) -> dict[str, str]:
    """The header that shows it."""
    return {"Authorization": f"Bearer {token}"} if token else {}


def test_a_token_searches_its_collections(served: Served) -> None:
    """By body, by address, and in a batch; the scheme in any case."""
    assert names(ask(served, ONE))[0] == "apples"
    assert names(ask(served, ALL, "secrets"))[0] == "apples"
    headers = {"Authorization": f"bearer  {ONE}"}
    assert names(served.client.get("/v1/search", params={"q": "x", "collection": "docs"}, headers=headers))
    bodies = [{"query": "x", "collection": name} for name in ("docs", "secrets", "absent")]
    answer = served.client.post("/v1/search/batch", json={"searches": bodies}, headers=bearer(ONE))
    assert [each["status"] for each in answer.json()["results"]] == [200, 403, 403]


@pytest.mark.parametrize("path", ["/v1/search", "/v1/search/batch", "/v1/status", "/v1/absent", "/absent"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_without_a_token_nothing_is_answered(served: Served, method: str, path: str) -> None:
    """401 that says how to ask, on every route but those of the operations; before the body is looked at."""
    for headers in ({}, {"Authorization": ONE}, {"Authorization": "Basic b25lOm9uZQ=="}, {"Authorization": "Bearer"}):
        response = served.client.request(method, path, headers=headers, content=b"no JSON" if method == "POST" else None)
        is_problem(response, 401, "Bearer TOKEN")
        assert response.headers["www-authenticate"] == "Bearer"


def test_a_wrong_token_is_told_as_such(served: Served) -> None:
    """401 invalid_token, whatever stands in it; two tokens are none."""
    for wrong in (f"{ONE}x", ONE[:-1], "x" * 5000, "'; drop table livedex.document; --", "\\", "{}"):
        response = is_problem_401(ask(served, wrong))
        assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    two = [("Authorization", f"Bearer {ONE}"), ("Authorization", f"Bearer {ALL}")]
    is_problem_401(served.client.get("/v1/status", headers=two))
    is_problem_401(served.client.get("/v1/status", headers={b"Authorization": b"Bearer \xff\xfe"}))


def is_problem_401(response: httpx.Response) -> httpx.Response:
    """It, once checked."""
    assert ONE not in response.text
    is_problem(response, 401)
    return response


def test_another_collection_is_403_whether_there_or_not(served: Served) -> None:
    """The two answers differ in nothing but the name; who may search all collections is told that one does not exist."""
    details = [
        is_problem(ask(served, ONE, name), 403)["detail"].replace(name, "it") for name in ("secrets", "absent", "DOCS", "*")
    ]
    assert len(set(details)) == 1
    is_problem(ask(served, ALL, "absent"), 404)
    is_problem(ask(served, OPERATOR), 403)
    is_problem(ask(served, ONE, "secrets", after=f"{TOPIC}:0:1000000", timeout_ms=60_000), 403)


def test_the_status_shows_a_caller_its_collections(served: Served) -> None:
    """An operator sees all and the dead letters; others what they may search."""

    def status(token: str) -> tuple[set[str], set[str], object]:
        found = served.client.get("/v1/status", headers=bearer(token)).json()
        sources, collections = ({row["collection"] for row in found[part]} for part in ("sources", "collections"))
        return sources, collections, found["dead_letters"]

    assert status(ONE) == ({"docs"}, {"docs"}, None)
    assert status(ALL) == ({"docs", "secrets"}, {"docs", "secrets"}, None)
    assert status(OPERATOR) == ({"docs", "secrets"}, {"docs", "secrets"}, {})


def test_operations_and_documentation_are_open(served: Served) -> None:
    """Probes and scrapers have no token; OpenAPI says that searches need one."""
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
        assert served.client.get(path).status_code == 200
    described = served.client.get("/openapi.json").json()
    assert described["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert described["paths"]["/v1/search"]["post"]["security"] == [{"HTTPBearer": []}]
    assert "security" not in described["paths"]["/healthz"]["get"]


def test_refused_searches_are_counted(served: Served) -> None:
    """By their code, as all are."""
    before = served.metrics()
    ask(served, None)
    ask(served, ONE, "secrets")
    after = served.metrics()
    for code in ("401", "403"):
        rise = after.value("livedex_search_requests_total", code=code) - before.value(
            "livedex_search_requests_total", code=code
        )
        assert rise == 1


def test_a_token_is_revoked_without_a_restart(served: Served, file: Path) -> None:
    """Soon after the file was changed; one that is broken changes nothing."""
    try:
        tokens = served.app._tokens
        assert tokens is not None
        rewrite(file, "[tokens")
        until(lambda: ask(served, ONE).status_code == 200 and tokens._seen == tokens._stamp(), what="the worker to look")
        assert ask(served, ONE).status_code == 200
        rewrite(file, FILE.replace(ONE, "new-0123456789abcdef"))
        until(lambda: ask(served, ONE).status_code == 401, what="the token to be revoked")
        assert ask(served, "new-0123456789abcdef").status_code == 200
    finally:
        rewrite(file, FILE)
        until(lambda: ask(served, ONE).status_code == 200, what="the token to be taken again")


def rewrite(file: Path, content: str) -> None:
    """Replace it in one step, as an editor or Kubernetes does."""
    other = file.with_suffix(".new")
    other.write_text(content)
    os.replace(other, file)  # noqa: PTH105 - said as what it is


def test_a_wrong_file_stops_the_start(workers: Workers, tmp_path: Path) -> None:
    """With what is wrong, before anything listens; what is not there as well."""
    wrong = tmp_path / "tokens.toml"
    wrong.write_text('[tokens.a]\ntoken = "s3cret"\ncollections = ["*"]')
    for path, says in ((wrong, "tokens.a.token: 16 to 512"), (tmp_path / "absent", "check LIVEDEX_API_TOKENS_FILE")):
        with pytest.raises(ConfigError, match=says) as caught:
            QueryApp(Settings(database_url=workers.database_url, embedder="hash", http_port=0, api_tokens_file=path))
        assert "s3cret" not in str(caught.value)


def test_with_tokens_other_machines_are_served(workers: Workers, file: Path) -> None:
    """The worker listens where it is told."""
    url = workers.database_url
    app = QueryApp(Settings(database_url=url, embedder="hash", http_host="0.0.0.0", http_port=0, api_tokens_file=file))
    with workers.in_thread(app):
        port = app.http.address.rpartition(":")[2]
        response = httpx.get(f"http://127.0.0.1:{port}/v1/search", params={"q": "x"}, timeout=20, trust_env=False)
        assert response.status_code == 401
        headers = {"Host": "search.example", **bearer(ALL)}
        response = httpx.get(f"http://127.0.0.1:{port}/v1/status", headers=headers, timeout=20, trust_env=False)
        assert response.status_code == 200, "where tokens are asked for, a proxy's name will do"


def test_the_command_line_shows_its_token(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the file of LIVEDEX_API_TOKEN_FILE; what is wrong with it, or with the token, is one line without it."""
    port = str(httpx.URL(served.client.base_url).port)
    livedex = Terminal({"LIVEDEX_HTTP_PORT": port, "LIVEDEX_EMBEDDER": "hash"}, monkeypatch, capsys)
    path = tmp_path / "token"

    def search(token: str | None, collection: str = "docs") -> tuple[int, str, str]:
        if token is not None:
            path.write_text(token)
        chosen = {"LIVEDEX_API_TOKEN_FILE": str(path)} if token is not None else {}
        done = livedex("search", TEXTS["apples"], "--collection", collection, "--json", **chosen)
        assert ONE not in done.err
        return done.code, done.out, done.err

    code, out, _ = search(f"{ONE}\n")
    assert (code, '"document_id": "apples"' in out) == (0, True)
    for token, collection, says in (
        (None, "docs", "LIVEDEX_API_TOKEN_FILE"),
        (f"{ONE}x", "docs", "LIVEDEX_API_TOKEN_FILE"),
        (ONE, "secrets", "may not search the collection secrets"),
        (f"{ONE}\n{ALL}", "docs", "one token on one line"),
        ("é", "docs", "one token on one line"),
    ):
        code, out, err = search(token, collection)
        assert (code, out) == (1, "")
        assert says in err
    done = livedex("search", "x", LIVEDEX_API_TOKEN_FILE=str(tmp_path / "absent"))
    assert (done.code, "check LIVEDEX_API_TOKEN_FILE" in done.err) == (1, True)
