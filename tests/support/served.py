"""A query worker in a thread of the test's process, with three documents to search."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from livedex.config import Settings
from livedex.dev.stack import Addresses
from livedex.encoders import ModelSpec
from livedex.encoders.hash import HashEncoder
from livedex.query.active import OpenEncoder
from livedex.query.app import QueryApp
from support.database import fresh_database
from support.synthetic import Document, Piece, connection_to, create_collection, fill
from support.workers import Metrics, Workers

MODEL = "hash-16"
TEXTS = {"apples": "Apples grow on trees.", "bridges": "Bridges cross rivers.", "clocks": "Clocks tell the time."}
TOPIC = "http.documents"
PROBLEM = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Served:
    """A query worker in a thread of this process, with its database."""

    app: QueryApp
    client: httpx.Client
    workers: Workers

    def ask(self, **body: Any) -> httpx.Response:
        """POST a search."""
        return self.client.post("/v1/search", json=body)

    def ask_all(self, *bodies: dict[str, Any]) -> httpx.Response:
        """POST several searches at once."""
        return self.client.post("/v1/search/batch", json={"searches": bodies})

    def metrics(self) -> Metrics:
        """Its metrics now."""
        return Metrics(self.client.get("/metrics").text)


@contextmanager
def serving(
    stack: Addresses, template: str, folder: Path, *, collections: Sequence[str] = ("default",),
    open_encoder: OpenEncoder | None = None, **settings: Any,
) -> Iterator[Served]:  # fmt: skip
    """Three documents in each collection, with the vectors of the hash encoder, and a source whose progress stands at 10."""
    encoder = HashEncoder(ModelSpec(model=MODEL))
    vectors = encoder.encode_documents(list(TEXTS.values()))
    documents = [
        Document(name=name, pieces=[Piece(text=text, vector=vector)], metadata={"initial": name[0], "n": n})
        for n, ((name, text), vector) in enumerate(zip(TEXTS.items(), vectors, strict=True))
    ]
    with fresh_database(stack.database_url, template) as url, Workers(stack, url, folder) as workers:
        with connection_to(url) as connection:
            for name in collections:
                fill(connection, create_collection(connection, name, model=MODEL), documents)
                topic = TOPIC if name == collections[0] else f"{name}.documents"
                connection.execute(
                    "insert into livedex.source (topic, collection_id)"
                    " select %s, collection_id from livedex.collection where name = %s",
                    (topic, name),
                )
            connection.execute(
                "insert into livedex.source_progress (topic, partition, next_offset, owner) values (%s, 0, 10, '')", (TOPIC,)
            )
        app = QueryApp(Settings(database_url=url, embedder="hash", http_port=0, **settings), open_encoder=open_encoder)
        with workers.in_thread(app) as address, httpx.Client(base_url=address, timeout=20, trust_env=False) as client:
            yield Served(app, client, workers)


def is_problem(response: httpx.Response, status: int, says: str = "") -> dict[str, Any]:
    """The problem document of a refused request."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    body: dict[str, Any] = response.json()
    assert (body["type"], body["status"]) == ("about:blank", status)
    assert body["title"]
    assert says in body["detail"]
    return body


def names(response: httpx.Response) -> list[str]:
    """The documents of an answer."""
    assert response.status_code == 200, response.text
    return [row["document_id"] for row in response.json()["results"]]
