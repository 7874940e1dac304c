"""`livedex search`: ask the query worker, or search in this process where none answers."""

import re
from typing import Annotated, Any

import httpx
import typer
from rich.table import Table
from rich.text import Text

from livedex.cli.session import data, database, people, print_json, readable, settings
from livedex.config import Settings
from livedex.errors import ConfigError, LivedexError, TimedOutError, UnavailableError, UsageError

EXCERPT = 160  # characters of a chunk in the table
_REMEDY = (
    "set LIVEDEX_HTTP_PORT to the port of livedex serve, whose log says what is wrong with it, or to one where nothing "
    "listens, to search in this process"
)


def search(
    text: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Results.")] = 10,
    collection: Annotated[str, typer.Option(help="Collection.")] = "default",
    filter: Annotated[str, typer.Option(help="Metadata that a document must contain, as JSON.")] = "{}",  # noqa: A002
    mode: Annotated[str, typer.Option(help="hybrid, vector or text.")] = "hybrid",
    as_json: Annotated[bool, typer.Option("--json", help="The whole answer as JSON.")] = False,
    timeout: Annotated[float, typer.Option(min=0.001, max=60, help="Seconds.")] = 10.0,
) -> None:
    """Search a collection."""
    import json

    try:
        wanted = json.loads(filter)
    except ValueError:
        raise UsageError(f"--filter {filter!r} is no JSON object") from None
    body = {"query": text, "k": k, "collection": collection, "filter": wanted, "mode": mode, "timeout_ms": int(timeout * 1000)}
    chosen = settings()
    answer = _from_worker(chosen, body) or _in_this_process(chosen, body)
    if as_json:
        print_json(answer)
    elif answer["results"]:
        data.print(_table(answer["results"]))
    else:
        people.print("nothing found")


def _from_worker(chosen: Settings, body: dict[str, Any]) -> dict[str, Any] | None:
    """The query worker's answer; None when no worker listens."""
    host = f"[{chosen.http_host}]" if ":" in chosen.http_host else chosen.http_host
    address = f"http://{host}:{chosen.http_port}"
    try:
        response = httpx.post(
            f"{address}/v1/search", json=body, headers=_token(chosen), timeout=body["timeout_ms"] / 1000 + 2, trust_env=False
        )
    except httpx.ConnectError:
        people.print(f"no query worker at {address}: searching in this process", style="dim")
        return None
    except httpx.TimeoutException:
        raise TimedOutError(f"the query worker at {address} did not answer in time") from None
    except httpx.TransportError as error:  # the worker ended just now, or another program listens there
        why = str(error) or type(error).__name__
        raise UnavailableError("serve", f"what listens at {address} gives no answer ({why}): {_REMEDY}") from None
    content = _content(response, address)
    if response.is_success:
        return content
    raise _error(response.status_code, content)


def _token(chosen: Settings) -> dict[str, str]:
    """What shows the worker who asks."""
    path = chosen.api_token_file
    if path is None:
        return {}
    try:
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"the token file {path} cannot be read: {error.strerror}; check LIVEDEX_API_TOKEN_FILE") from None
    except UnicodeDecodeError:
        token = ""
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ConfigError(f"the token file {path} does not have one token on one line: check LIVEDEX_API_TOKEN_FILE")
    return {"Authorization": f"Bearer {token}"}


def _content(response: httpx.Response, address: str) -> dict[str, Any]:
    """The answer or problem document of a query worker; ConfigError when something else answers there."""
    try:
        content = response.json()
    except ValueError:
        raise _stranger(address) from None
    wanted = {"results", "took_ms"} if response.is_success else {"status", "detail"}
    if not isinstance(content, dict) or not wanted <= content.keys():
        raise _stranger(address)
    return content


def _stranger(address: str) -> ConfigError:
    return ConfigError(f"what answers at {address} is no query worker of livedex: {_REMEDY}")


def _error(status: int, problem: dict[str, Any]) -> LivedexError:
    detail = str(problem["detail"])
    if status in (httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.TOO_MANY_REQUESTS):
        return UnavailableError(str(problem.get("dependency", "serve")), detail)
    if status == httpx.codes.UNAUTHORIZED:
        return ConfigError(f"{detail}: name a file with a token of the query worker in LIVEDEX_API_TOKEN_FILE")
    if status == httpx.codes.GATEWAY_TIMEOUT:
        return TimedOutError(detail)
    return UsageError(detail) if status == httpx.codes.BAD_REQUEST else ConfigError(detail)


def _in_this_process(chosen: Settings, body: dict[str, Any]) -> dict[str, Any]:
    from pydantic import ValidationError

    from livedex.catalogue import opener
    from livedex.database import open_pool
    from livedex.observe import QueryMetrics
    from livedex.query.active import Encoders
    from livedex.query.bodies import SearchRequest
    from livedex.query.embedding import QueryEmbedder
    from livedex.query.searcher import Searcher

    try:
        request = SearchRequest(**body)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    with database(chosen), open_pool(chosen.database_url, size=1, name="livedex-search") as pool:
        encoders = Encoders(chosen.embedder, pool, opener(chosen))
        for generation in encoders.refresh():
            if generation.collection == request.collection and request.mode != "text":
                encoders.load(generation)
        answer = Searcher(pool, encoders, QueryEmbedder(encoders), QueryMetrics()).search(request.search())
    return {"results": answer.results, "took_ms": answer.took_ms, "generation": answer.generation, "degraded": False}


def _table(results: list[dict[str, Any]]) -> Table:
    made = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("score", "document", "title", "text"):
        made.add_column(heading, overflow="fold" if heading == "text" else "ellipsis")
    for row in results:
        excerpt = " ".join(row["chunk"].split())[:EXCERPT]
        cells = (f"{row['score']:.4f}", row["document_id"], row["title"] or "", excerpt)
        made.add_row(*(Text(readable(cell)) for cell in cells))
    return made
