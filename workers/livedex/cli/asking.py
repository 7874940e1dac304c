"""Where a command's searches are answered: by the query worker, or in this process where none listens."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import httpx

from livedex.api_token import read_token
from livedex.cli.session import database, people
from livedex.config import Settings
from livedex.errors import ConfigError, LivedexError, TimedOutError, UnavailableError, UsageError

if TYPE_CHECKING:
    from livedex.query.bodies import SearchRequest

_REMEDY = (
    "set LIVEDEX_HTTP_PORT to the port of livedex serve, whose log says what is wrong with it, or to one where nothing "
    "listens, to search in this process"
)

Answer = dict[str, Any]  # as HTTP gives it
Ask = Callable[[dict[str, Any]], Answer]  # takes the body of a search


@contextmanager
def asking(chosen: Settings, *, generation: int | None = None) -> Iterator[Ask]:
    """Answers searches. Whether a worker listens is found out by the first of them; those in a generation that is named are
    always done in this process.
    """
    with ExitStack() as opened:
        own = opened.enter_context(_in_this_process(chosen, generation)) if generation is not None else None
        http = opened.enter_context(httpx.Client(trust_env=False))

        def ask(body: dict[str, Any]) -> Answer:
            nonlocal own
            if own is None:
                answer = _from_worker(http, chosen, body)
                if answer is not None:
                    return answer
                own = opened.enter_context(_in_this_process(chosen, None))
            return own(body)

        yield ask


def address_of(chosen: Settings) -> str:
    """Where the settings say that a query worker of this machine is."""
    host = f"[{chosen.http_host}]" if ":" in chosen.http_host else chosen.http_host
    return f"http://{host}:{chosen.http_port}"


def _from_worker(http: httpx.Client, chosen: Settings, body: dict[str, Any]) -> Answer | None:
    """The query worker's answer; None when no worker listens."""
    address = address_of(chosen)
    try:
        response = http.post(f"{address}/v1/search", json=body, headers=_token(chosen), timeout=body["timeout_ms"] / 1000 + 2)
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
    token = read_token(chosen.api_token_file)
    return {"Authorization": f"Bearer {token}"} if token is not None else {}


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


@contextmanager
def _in_this_process(chosen: Settings, generation_id: int | None) -> Iterator[Ask]:
    from livedex.catalogue import opener
    from livedex.database import open_pool
    from livedex.observe import QueryMetrics
    from livedex.query.active import Encoders
    from livedex.query.embedding import QueryEmbedder
    from livedex.query.searcher import Searcher

    with database(chosen), open_pool(chosen.database_url, size=1, name="livedex-search") as pool:
        encoders = Encoders(chosen.embedder, pool, opener(chosen), only=generation_id)
        encoders.refresh()
        if generation_id is not None and encoders.with_id(generation_id) is None:
            raise ConfigError(
                f"generation {generation_id} is not there, or is written no more: livedex generation list shows those that are"
            )
        metrics = QueryMetrics()  # that nobody reads
        searcher = Searcher(pool, encoders, QueryEmbedder(encoders, metrics), metrics)

        def ask(body: dict[str, Any]) -> Answer:
            request = _request(body)
            generation = encoders.generation(request.collection, timeout=request.timeout_ms / 1000)
            if generation is not None and generation_id not in (None, generation.generation_id):
                raise ConfigError(f"generation {generation_id} is not one of collection {request.collection}")
            if generation is not None and request.mode != "text" and generation.generation_id not in encoders.loaded():
                encoders.load(generation)
            for name in encoders.missing_rerankers(time.monotonic()) if request.rerank else ():
                encoders.load_reranker(name, time.monotonic())
            return asdict(searcher.search(request.search()))

        yield ask


def _request(body: dict[str, Any]) -> "SearchRequest":
    from pydantic import ValidationError

    from livedex.query.bodies import SearchRequest

    try:
        return SearchRequest(**body)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
