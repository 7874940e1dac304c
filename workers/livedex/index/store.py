"""The Postgres side of the index worker: every statement that it sends, each in a short transaction.

`stage` inserts chunks and vectors ahead, idempotently; nothing of it is visible. `apply` makes a batch visible behind two
fences, or changes nothing and raises `FencedError`. What fails raises UnavailableError because Postgres is down, ConflictError
because of another transaction, RefusedError because of what a document holds, SystemicError because the database is not ours.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector, Vector
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from livedex import catalogue
from livedex.catalogue import Generation, Live, Source
from livedex.core.change import VersionMode
from livedex.core.chunking import Chunk
from livedex.core.continuity import KnownTopic, Topic, broken_topic
from livedex.core.plan import BatchPlan, DocumentPlan, DocumentResult, StoredVersions
from livedex.core.record import Version
from livedex.core.upkeep import LEAST_GRACE
from livedex.database import Connection, query, translated
from livedex.errors import UnavailableError
from livedex.index.applying import Advance, Claim, Keys, apply_documents, move_progress, write_dead_letters
from livedex.index.refusals import SourceStoppedError, UnknownCommitError, judged

STAGING_CONNECTIONS = 2  # an HNSW insert is bound by its connection; two give 1.8 times the rows on two cores
ROWS_FOR_ANOTHER_CONNECTION = 32  # below it, one connection is done before a second one has begun
ROWS_PER_TRANSACTION = 500  # seconds where inserts are slow: far from the statement timeout, and little to do again


class Store:
    """The tables of livedex as the index worker writes them. Its methods may be called from any thread."""

    def __init__(self, pool: ConnectionPool[Connection]) -> None:
        self._pool = pool
        self._stagers = ThreadPoolExecutor(STAGING_CONNECTIONS, thread_name_prefix="stage")

    def close(self) -> None:
        """Give the connections back."""
        self._stagers.shutdown(wait=False, cancel_futures=True)
        self._pool.close(timeout=1)

    def catalogue(self) -> tuple[dict[str, Source], dict[int, Live]]:
        """The sources by topic, and the live generations by collection id."""
        with self._connection() as connection:
            return catalogue.sources(connection), catalogue.live(connection)

    def fail_generation(self, generation: Generation, why: str) -> bool:
        """Write to a generation no more that is not the active one; whether it was written to until now."""
        arguments = {"generation_id": generation.generation_id, "reason": why}
        with self._connection() as connection:
            return connection.execute(query("generations", "fail"), arguments).rowcount == 1

    def claim(self, topic: str, partition: int, *, found: Topic | None, start: int, owner: str) -> Claim:
        """Take a partition over; the progress of a partition that nobody ever owned begins at `start`.

        Raises SourceStoppedError when the source is stopped, or must be because of what the topic is now (`found`).
        """
        arguments = {"topic": topic, "partition": partition, "start": start, "owner": owner}
        with self._connection() as connection, connection.transaction():
            epoch, why = _follow(connection, topic, found)
            row = connection.execute(query("index", "claim"), arguments).fetchone() if why is None else None
        if row is None:
            raise SourceStoppedError(why)
        return Claim(topic=topic, partition=partition, owner_epoch=row[0], next_offset=row[1], epoch=epoch)

    def stop_source(self, source: Source, reason: str) -> None:
        """Stop a source for all workers, until an operator resets it; nothing when it was reset since it was looked at."""
        known = {"topic": source.topic, "epoch": source.epoch, "topic_id": source.topic_id, "reason": reason}
        with self._connection() as connection:
            connection.execute(query("index", "stop_source"), known)

    def stop_claimed_source(self, claim: Claim, reason: str) -> bool:
        """Stop the source of a claimed partition for all workers; False, and nothing, when the claim is over."""
        arguments = {
            "topic": claim.topic, "partition": claim.partition, "owner_epoch": claim.owner_epoch, "reason": reason,
        }  # fmt: skip
        with self._connection() as connection, connection.transaction():
            connection.execute(query("index", "lock_source"), arguments)
            return connection.execute(query("index", "stop_claimed_source"), arguments).rowcount == 1

    def finish_rebuild(self, topic: str) -> int:
        """Delete some of what only the log before a reset had, once the rebuild got so far; how many documents that were."""
        with self._connection() as connection:
            row = connection.execute(query("index", "finish_rebuild"), {"topic": topic}).fetchone()
        return int(row[0]) if row else 0

    def progress(self) -> dict[tuple[str, int], int]:
        """The next offset of every partition, by topic and partition."""
        with self._connection() as connection:
            return {(row[0], row[1]): row[2] for row in connection.execute(query("index", "progress")).fetchall()}

    def unowned(self) -> list[tuple[str, int]]:
        """Topic and number of the partitions that no worker owns which is connected; of unread topics the first one."""
        with self._connection() as connection:
            return connection.execute(query("index", "unowned")).fetchall()

    def stored_versions(self, generation: Generation, ids: Sequence[str]) -> dict[str, StoredVersions]:
        """The versions of those of the documents that the database knows, deleted ones too."""
        arguments = {"collection_id": generation.collection_id, "ids": list(ids)}
        with self._connection() as connection:
            rows = connection.execute(query("index", "stored_versions"), arguments).fetchall()
        return {row[0]: StoredVersions(content=_version(row[1]), metadata=_version(row[2])) for row in rows}

    def known_chunks(self, generation: Generation, digests: Iterable[bytes]) -> dict[bytes, int]:
        """The keys of those of the chunks that are embedded already, by digest."""
        statement = query("index", "known_chunks", embeddings=generation.embeddings)
        arguments = {"collection_id": generation.collection_id, "digests": list(digests)}
        if not arguments["digests"]:
            return {}
        with self._connection() as connection:
            return dict(connection.execute(statement, arguments).fetchall())

    def stage(
        self, generation: Generation, chunks: Sequence[Chunk], vectors: Mapping[bytes, NDArray[np.float32]]
    ) -> dict[bytes, int]:
        """Insert chunks with their vectors ahead of the apply; the key of each chunk by digest. Invisible, idempotent.

        In small transactions: where one fails, what others inserted stays, and is found by its digest when it is tried again.
        """
        ordered = sorted(chunks, key=lambda chunk: chunk.digest)
        parts = min(STAGING_CONNECTIONS, 1 + len(ordered) // ROWS_FOR_ANOTHER_CONNECTION)
        size = min(max(1, -(-len(ordered) // parts)), ROWS_PER_TRANSACTION)
        slices = [ordered[start : start + size] for start in range(0, len(ordered), size)]
        staged = self._stagers.map(lambda part: self._stage(generation, part, vectors), slices)
        return {digest: key for part in staged for digest, key in part.items()}

    def _stage(
        self, generation: Generation, chunks: Sequence[Chunk], vectors: Mapping[bytes, NDArray[np.float32]]
    ) -> dict[bytes, int]:
        kind = generation.vector_type
        names = {"staging": f"staging_{kind}", "embeddings": generation.embeddings, "type": kind}
        arguments = {"collection_id": generation.collection_id, "text_config": generation.text_config}
        wrap = HalfVector if kind == "halfvec" else Vector
        with self._connection() as connection, connection.transaction(), connection.cursor() as cursor:
            cursor.execute(query("index", "staging_table", **names))
            with cursor.copy(query("index", "copy_staging", **names)) as copy:
                copy.set_types(["bytea", "text", "text", kind])
                for chunk in chunks:
                    copy.write_row((chunk.digest, chunk.context, chunk.text, wrap(vectors[chunk.digest])))
            cursor.execute(query("index", "stage_chunks", **names), arguments)
            cursor.execute(query("index", "stage_embeddings", **names), arguments)
            return dict(cursor.execute(query("index", "staged_keys", **names), arguments).fetchall())

    def hold(self, keys: Keys) -> None:
        """Keep the collector away from staged chunks that nothing refers to yet: their grace begins anew."""
        staged = [key for of in keys.values() for key in of.values()]
        with self._connection() as connection:
            connection.execute(query("index", "hold_staged"), {"keys": staged, "least": LEAST_GRACE})

    def apply(self, live: Live, advance: Advance, plan: BatchPlan, keys: Keys) -> dict[str, DocumentResult]:
        """Make a batch visible together with its progress, in one transaction; what it did with each document.

        Raises FencedError, and writes nothing, when another worker owns the partition, the progress stands elsewhere, or other
        generations than `live` are. A document that the version fence refuses has no entry in the answer.
        UnknownCommitError: it was all done, and the answer to the commit was lost.
        """
        results: dict[str, DocumentResult] | None = None
        try:
            with self._connection() as connection, connection.transaction():
                left_out = move_progress(connection, advance, live)
                done = apply_documents(connection, live, advance.claim, plan, keys, left_out=left_out) if plan.documents else {}
                write_dead_letters(connection, advance, plan)
                results = done  # from here on there is only the commit
        except UnavailableError as error:
            if results is None:
                raise
            raise UnknownCommitError(error, results) from error
        return results

    def rehearse(self, live: Live, claim: Claim, documents: Sequence[DocumentPlan], keys: Keys) -> None:
        """Apply these documents and undo it: raises what applying them alone would raise."""
        plan = BatchPlan(documents=tuple(documents), settled=(), rejected=())
        with self._connection() as connection, connection.transaction(force_rollback=True):
            apply_documents(connection, live, claim, plan, keys)

    def open_dead_letters(self) -> dict[str, int]:
        """How many dead letters are open, by reason."""
        with self._connection() as connection:
            return dict(connection.execute(query("index", "open_dead_letters")).fetchall())

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """A connection whose errors say who has to act."""
        with translated(), judged(), self._pool.connection() as connection:
            yield connection


def _follow(connection: Connection, topic: str, found: Topic | None) -> tuple[int, str | None]:
    """(epoch of the source, why it is stopped now); remembers what a topic is that is read for the first time."""
    wanted = {"topic": topic, "topic_id": found and found.topic_id, "partitions": found and found.partitions}
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(query("index", "follow_topic"), wanted).fetchone()
    if row is None:
        return 0, f"topic {topic} is no source any more: livedex apply makes it one"
    if row["state"] == "stopped":
        return row["epoch"], row["reason"] or "an operator stopped it"
    mode = VersionMode(row["version_mode"])
    known = KnownTopic(name=topic, topic_id=row["topic_id"], partitions=row["partitions"], version_mode=mode)
    why = broken_topic(known, found)
    if why is not None:
        known_as = {"topic": topic, "epoch": row["epoch"], "topic_id": row["topic_id"], "reason": why}
        connection.execute(query("index", "stop_source"), known_as)
    return row["epoch"], why


def _version(stored: list[int] | None) -> Version | None:
    return Version(*stored) if stored else None
