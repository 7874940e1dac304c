"""Whether a generation is the fold of the log, text by text and vector by vector; and searches while it changes."""

import threading
import time
from collections import defaultdict
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
import psycopg
from pgvector.psycopg import register_vector

from livedex.catalogue import Generation, live
from livedex.core.chunking import chunk
from livedex.encoders.hash import HashEncoder
from support.fold import Document


def generations_of(connection: "psycopg.Connection[tuple[Any, ...]]") -> dict[int, Generation]:
    """Every live generation by its number."""
    return {made.generation_id: made for of in live(connection).values() for made in of}


def assert_is_fold_in(
    connection: "psycopg.Connection[tuple[Any, ...]]", made: Generation, expected: dict[str, Document]
) -> None:
    """The generation has just the chunks that its own rules make of these documents, with the vectors of its own model."""
    encoder = HashEncoder(made.model_spec)
    register_vector(connection)
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    rows = connection.execute(
        f"""select d.document_id, m.ordinal, k.context, k.text, e.embedding
              from livedex.document d
              join livedex.document_chunk m on m.doc_key = d.doc_key and m.chunking_id = %s
              join livedex.chunk k using (chunk_key)
              left join livedex.{made.embeddings} e using (chunk_key)
             where not d.deleted and d.collection_id = %s
             order by d.document_id, m.ordinal""",
        (made.chunking_id, made.collection_id),
    ).fetchall()
    for name, ordinal, context, text, embedding in rows:
        assert ordinal == len(found[name]), f"{name} has a gap before chunk {ordinal} in generation {made.generation_id}"
        found[name].append((context, text))
        assert embedding is not None, f"{name} chunk {ordinal} has no vector in generation {made.generation_id}"
        (wanted,) = encoder.encode_documents([f"{context}\n\n{text}" if context else text])
        assert np.allclose(embedding.to_numpy(), wanted, atol=1e-3), f"{name} chunk {ordinal} has another model's vector"
    for name, document in expected.items():
        pieces = chunk(
            document.text or "", title=document.title, markdown=True, spec=made.spec, count_tokens=encoder.count_tokens,
            max_tokens=made.identity.max_tokens,
        )  # fmt: skip
        assert found.pop(name, []) == [(piece.context, piece.text) for piece in pieces], f"{name} in {made.generation_id}"
    assert not found, f"generation {made.generation_id} has documents that are not there: {sorted(found)}"


class Asking:
    """Searches for a document's own text all the time. Whatever is active, it is found first, at a distance of 0: that shows
    that question and documents were embedded by one model.
    """

    def __init__(self, address: str, text: str, wanted: str, threads: int = 2) -> None:
        self._address = address
        self._text = text
        self._wanted = wanted
        self._stop = threading.Event()
        self.failures: list[str] = []
        self.generations: list[int] = []  # that answered
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _run(self) -> None:
        asked = {"query": self._text, "k": 3, "mode": "vector", "timeout_ms": 20_000}
        with httpx.Client(trust_env=False, timeout=30) as http:
            while not self._stop.is_set():
                try:
                    response = http.post(f"{self._address}/v1/search", json=asked)
                    self._judge(response)
                except Exception as error:  # noqa: BLE001 - told by the test
                    self.failures.append(repr(error))
                time.sleep(0.005)

    def _judge(self, response: httpx.Response) -> None:
        if response.status_code != httpx.codes.OK:
            self.failures.append(response.text)
            return
        answer = response.json()
        best = answer["results"][0]
        self.generations.append(answer["generation"])
        if best["document_id"] != self._wanted or abs(best["score"] - 1) > 0.01:
            self.failures.append(f"generation {answer['generation']} answers {best['document_id']}: {best['score']}")
