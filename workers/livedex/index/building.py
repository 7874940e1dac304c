"""The statements by which a generation is built behind the batches: which documents it lacks, and their maps once embedded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from livedex import catalogue
from livedex.catalogue import Generation
from livedex.core.chunking import Chunk
from livedex.database import query
from livedex.index.applying import map_chunks
from livedex.index.store import Store

MOST_DOCUMENTS = 200  # of a part
MOST_CHARACTERS = 2**18  # of a part; a longer document is a part of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Unbuilt:
    """A document that a generation lacks; its text is what its chunks tile."""

    doc_key: int
    content_version: list[int]
    title: str | None
    markdown: bool
    length: int  # characters


class BuildStore(Store):
    """The store, for who builds a generation beside the active one."""

    def unbuilt(self, active: Generation, made: Generation, after: int) -> list[Unbuilt]:
        """The next documents behind the key `after` that the generation lacks, as many as a part has; none at the end."""
        arguments = {**_chunkings(active, made), "collection_id": made.collection_id, "after": after, "most": MOST_DOCUMENTS}
        with self._connection() as connection, connection.cursor(row_factory=class_row(Unbuilt)) as cursor:
            found = cursor.execute(query("generations", "unbuilt"), arguments).fetchall()
        total, count = 0, 0
        for document in found:
            total += document.length
            if count and total > MOST_CHARACTERS:
                break
            count += 1
        return found[:count]

    def texts(self, active: Generation, documents: Sequence[Unbuilt]) -> dict[int, str]:
        """The texts of documents by key; without those that changed since they were found, which batches have written."""
        wanted = {document.doc_key: document.content_version for document in documents}
        arguments = {"active_chunking": active.chunking_id, "doc_keys": list(wanted)}
        with self._connection() as connection:
            rows = connection.execute(query("generations", "texts"), arguments).fetchall()
        return {doc_key: text for doc_key, version, text in rows if wanted[doc_key] == version}

    def map_built(
        self, active: Generation, made: Generation, documents: Sequence[Unbuilt],
        chunks: Mapping[int, tuple[Chunk, ...]], keys: Mapping[bytes, int],
    ) -> int:  # fmt: skip
        """Give the generation these documents, as far as they are what was read from the active one; how many that were."""
        shared = {"key": catalogue.COLLECTION_LOCK, "collection_id": made.collection_id}
        known = [
            {"doc_key": each.doc_key, "content_version": each.content_version} for each in documents if each.doc_key in chunks
        ]
        arguments = {
            "generation_id": made.generation_id, "active_chunking": active.chunking_id, "documents": Jsonb(known),
        }  # fmt: skip
        with self._connection() as connection, connection.transaction():
            connection.execute(query("index", "share_collection"), shared)
            unchanged = [row[0] for row in connection.execute(query("generations", "lock_unchanged"), arguments).fetchall()]
            map_chunks(connection, made, {doc_key: chunks[doc_key] for doc_key in unchanged}, keys)
        return len(unchanged)

    def extent(self, active: Generation, made: Generation) -> tuple[int, int]:
        """(documents with chunks that the generation has, that the active one has)."""
        with self._connection() as connection:
            row = connection.execute(query("generations", "extent"), _chunkings(active, made)).fetchone()
        assert row is not None
        return int(row[0]), int(row[1])

    def note_end(self, made: Generation, seconds: float) -> None:
        """Let operators know when the generation will be complete, as it seems."""
        arguments = {"generation_id": made.generation_id, "seconds": seconds}
        with self._connection() as connection:
            connection.execute(query("generations", "note_end"), arguments)

    def begin_pass(self, made: Generation, worker: str) -> int:
        """Begin to look what the generation lacks; how many batches have left it out so far."""
        arguments = {"generation_id": made.generation_id, "worker": worker}
        with self._connection() as connection:
            row = connection.execute(query("generations", "begin_pass"), arguments).fetchone()
        assert row is not None
        return int(row[0])

    def end_pass(self, made: Generation, left_out: int) -> None:
        """It lacked nothing that had been left out when the pass began."""
        arguments = {"generation_id": made.generation_id, "left_out": left_out}
        with self._connection() as connection:
            connection.execute(query("generations", "end_pass"), arguments)


def _chunkings(active: Generation, made: Generation) -> dict[str, int]:
    return {"active_chunking": active.chunking_id, "chunking_id": made.chunking_id}
