"""Searching as applications do that do it by themselves, in a process of its own: `python -m bench.plain`.

Each request is encoded by sentence-transformers, opens a connection, and asks for the nearest rows with ORDER BY and LIMIT, on
the same table with the same vector index.
"""

import os
from collections.abc import Callable

import psycopg
from pgvector import Vector
from pgvector.psycopg import register_vector

from bench.child import Message, serve
from bench.figures import timed
from livedex.config import DEFAULT_MODEL
from livedex.encoders.models import find_model

NEAREST = """
select d.document_id, c.text, e.embedding <=> %(vector)s::vector::halfvec(384) as distance
  from livedex.embedding_1 e join livedex.chunk c using (chunk_key) join livedex.document_chunk m using (chunk_key)
  join livedex.document d using (doc_key)
 order by distance limit %(k)s"""


def begin() -> Callable[[Message], Message]:
    """Answer {"url": ..., "questions": [...]} by the seconds that each took."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(find_model(DEFAULT_MODEL)), local_files_only=True)

    def search(url: str, question: str) -> None:
        vector = model.encode(question)
        with psycopg.connect(url) as connection:
            register_vector(connection)
            assert connection.execute(NEAREST, {"vector": Vector(vector), "k": 10}).fetchall()

    return lambda request: {"seconds": [timed(lambda: search(request["url"], each)) for each in request["questions"]]}  # noqa: B023


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    serve(begin)
