"""A collection of three documents, and a query worker in this process that embeds for sessions of its servers."""

import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from livedex.catalogue import Generation
from livedex.config import Settings
from livedex.encoders import Encoder, ModelSpec
from livedex.encoders.hash import HashEncoder
from livedex.encoders.port import Vectors
from livedex.errors import UnavailableError
from livedex.query.app import QueryApp
from support.synthetic import Document, Piece, connection_to, create_collection, fill
from support.waiting import until
from support.workers import Workers

MODEL = "hash-16"
ENCODER = HashEncoder(ModelSpec(model=MODEL))
TEXTS = {"apples": "Apples grow on trees.", "bridges": "Bridges cross rivers.", "clocks": "Clocks tell the time."}


class SlowEncoder:
    """The hash encoder, which encodes when it is let to, and counts its calls."""

    def __init__(self) -> None:
        self.identity = ENCODER.identity
        self.go = threading.Event()
        self.go.set()
        self.calls: list[list[str]] = []
        self.refuses = ""  # a word that makes it fail
        self.away = 0  # calls that fail for now

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts that search."""
        self.go.wait(30)
        if self.away:
            self.away -= 1
            raise UnavailableError("embedder", "the model is away")
        if self.refuses and any(self.refuses in text for text in texts):
            raise ValueError(self.refuses)
        self.calls.append(list(texts))
        return ENCODER.encode_queries(texts)

    def times(self, text: str) -> int:
        """How often a text was encoded."""
        return sum(call.count(text) for call in self.calls)

    def __getattr__(self, name: str) -> Any:
        return getattr(ENCODER, name)


def fill_collection(url: str) -> Generation:
    """Three documents with the hash encoder's vectors, in a collection `default`."""
    vectors = ENCODER.encode_documents(list(TEXTS.values()))
    documents = [
        Document(name=name, pieces=[Piece(text=text, vector=vector)], metadata={"kind": name})
        for (name, text), vector in zip(TEXTS.items(), vectors, strict=True)
    ]
    with connection_to(url) as connection:
        generation = create_collection(connection, "default", model=MODEL)
        fill(connection, generation, documents)
    return generation


@contextmanager
def serving(
    workers: Workers, url: str, encoder: SlowEncoder, *, standbys: Sequence[str] = (), **more: Any
) -> Iterator[QueryApp]:
    """A query worker that has said that it is there, to the primary and to the standbys."""

    def opened(name: str, generation: Generation) -> Encoder:
        del name, generation
        return encoder

    settings = Settings(database_url=url, standby_urls=" ".join(standbys), embedder="hash", http_port=0, **more)
    with workers.in_thread(app := QueryApp(settings, open_encoder=opened)):
        for server in (url, *standbys):
            until(lambda: watched(server), what=f"a worker at {server}")  # noqa: B023
        yield app


def watched(url: str) -> bool:
    """Whether a query worker has said at this server that it is there."""
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute("select exists (select from livedex.advisory_locks where form = 2)").fetchone() == (True,)


def unused() -> str:
    """A text that nobody asked before."""
    return f"what is {secrets.token_hex(8)}"
