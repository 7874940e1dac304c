"""The two pipelines that livedex is compared with: `python -m bench.baseline naive | competent URL KAFKA TOPIC EVERY`.

Both read the same topic with kafka-python, cut with the same recursive splitter into chunks of at most 800 characters, embed
with sentence-transformers, and write to Postgres with psycopg and pgvector, halfvec and HNSW as livedex does. Neither keeps
versions, offsets, dead letters or a text search index, so each does less per event than livedex.
"""

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg
from kafka import KafkaConsumer, TopicPartition
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import sql
from semantic_text_splitter import TextSplitter

from bench.child import Message, serve
from bench.figures import timed
from livedex.config import DEFAULT_MODEL
from livedex.encoders.models import find_model

CHARACTERS = 800
TABLE = """
create table {table} (
  id bigint generated always as identity primary key,
  document_id text not null, ordinal int not null, hash text not null, text text not null, embedding halfvec(384) not null)"""
INSERT = "insert into {table} (document_id, ordinal, hash, text, embedding) values (%s, %s, %s, %s, %s)"

Connection = psycopg.Connection[tuple[Any, ...]]
Row = tuple[str, int, str, str, HalfVector]


def open_database(url: str) -> Connection:
    """A connection that knows vectors."""
    connection = psycopg.connect(url, autocommit=True)
    connection.execute("create extension if not exists vector")
    register_vector(connection)
    return connection


def create_table(connection: Connection, table: str) -> None:
    """Chunks with their vectors, by document; the vector index is there from the start."""
    name = sql.Identifier(table)
    connection.execute(sql.SQL(TABLE).format(table=name))
    connection.execute(sql.SQL("create index on {} (document_id)").format(name))
    create_index(connection, table)


def create_index(connection: Connection, table: str) -> None:
    """The vector index, with pgvector's defaults."""
    connection.execute(
        sql.SQL("create index {} on {} using hnsw (embedding halfvec_cosine_ops)").format(
            sql.Identifier(f"{table}_hnsw"), sql.Identifier(table)
        )
    )


def replace_document(connection: Connection, table: str, document_id: str, rows: Iterable[Row]) -> None:
    """Delete what there is of a document and insert it again, row by row."""
    name = sql.Identifier(table)
    with connection.transaction():
        connection.execute(sql.SQL("delete from {} where document_id = %s").format(name), (document_id,))
        for row in rows:
            connection.execute(sql.SQL(INSERT).format(table=name), row)


def digest(text: str) -> str:
    """Names a chunk by its text."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(slots=True)
class Pipeline:
    """What both have: the model, the splitter, the consumer, the table."""

    connection: Connection
    consumer: Any
    table: str
    model: Any
    every: int = 1  # of how many events one is indexed
    positions: dict[int, int] = field(default_factory=dict)
    embedded: int = 0
    left_out: int = 0  # chunks of the others
    seen: int = 0

    def run(self, ends: Mapping[int, int]) -> None:
        """Read and index everything before these offsets."""
        raise NotImplementedError

    def split(self, text: str) -> list[str]:
        """The chunks of a document."""
        return list(TextSplitter(CHARACTERS).chunks(text))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Their vectors: `encode` at its defaults, which sorts by length and takes 32 at a time."""
        if not texts:
            return np.empty((0, 384), np.float32)
        self.embedded += len(texts)
        vectors: NDArray[np.float32] = self.model.encode(list(texts))
        return vectors

    def behind(self, ends: Mapping[int, int]) -> bool:
        """Whether something before these offsets was not read yet."""
        return any(self.positions.get(partition, 0) < end for partition, end in ends.items())

    def note(self, record: Any) -> None:
        """A record is indexed."""
        self.positions[record.partition] = record.offset + 1


class Naive(Pipeline):
    """One event at a time, every chunk of it, row by row."""

    def run(self, ends: Mapping[int, int]) -> None:
        """See Pipeline."""
        while self.behind(ends):
            for records in self.consumer.poll(timeout_ms=500).values():
                for record in records:
                    self._index(json.loads(record.value))
                    self.note(record)

    def _index(self, event: Message) -> None:
        texts = self.split(event["text"]) if event["op"] == "upsert" else []
        self.seen += 1
        if self.seen % self.every:
            self.left_out += len(texts)
            return
        vectors = self.encode(texts)
        rows = (
            (event["id"], ordinal, digest(text), text, HalfVector(vector))
            for ordinal, (text, vector) in enumerate(zip(texts, vectors, strict=True))
        )
        replace_document(self.connection, self.table, event["id"], rows)


class Competent(Pipeline):
    """A poll at a time: the last version of each document, the chunks that it did not have before, in one transaction."""

    def run(self, ends: Mapping[int, int]) -> None:
        """See Pipeline."""
        while self.behind(ends):
            records = [record for part in self.consumer.poll(timeout_ms=500).values() for record in part]
            last = {event["id"]: event for event in (json.loads(record.value) for record in records)}
            if last:
                self._index(last)
            for record in records:
                self.note(record)

    def _index(self, events: Mapping[str, Message]) -> None:
        wanted = {name: self.split(event["text"]) if event["op"] == "upsert" else [] for name, event in events.items()}
        moves, gone, missing = self._compare(wanted)
        texts = [text for _, _, text in missing]
        vectors = self.encode(texts)
        rows = [
            (name, ordinal, digest(text), text, HalfVector(vector))
            for (name, ordinal, text), vector in zip(missing, vectors, strict=True)
        ]
        table = sql.Identifier(self.table)
        with self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.execute(sql.SQL("delete from {} where id = any(%s)").format(table), (gone,))
            cursor.executemany(sql.SQL("update {} set ordinal = %s where id = %s").format(table), moves)
            cursor.executemany(sql.SQL(INSERT).format(table=table), rows)

    def _compare(
        self, wanted: Mapping[str, Sequence[str]]
    ) -> tuple[list[tuple[int, int]], list[int], list[tuple[str, int, str]]]:
        """((new ordinal, id) of rows that move, ids that go, (document, ordinal, text) of chunks that are missing)."""
        statement = sql.SQL("select document_id, hash, id, ordinal from {} where document_id = any(%s)")
        rows = self.connection.execute(statement.format(sql.Identifier(self.table)), (list(wanted),)).fetchall()
        present: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
        for name, hashed, row_id, ordinal in rows:
            present[name, hashed].append((row_id, ordinal))
        moves: list[tuple[int, int]] = []
        missing: list[tuple[str, int, str]] = []
        for name, texts in wanted.items():
            for ordinal, text in enumerate(texts):
                same = present.get((name, digest(text)))
                if not same:
                    missing.append((name, ordinal, text))
                    continue
                row_id, before = same.pop(0)
                if before != ordinal:
                    moves.append((ordinal, row_id))
        gone = [row_id for left in present.values() for row_id, _ in left]
        return moves, gone, missing


def begin(kind: str, url: str, servers: str, topic: str, every: str) -> Callable[[Message], Message]:
    """Index up to the offsets that are asked for: {"ends": {partition: offset}}; or pass them: {"skip": ...}."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(find_model(DEFAULT_MODEL)), local_files_only=True)
    consumer = KafkaConsumer(bootstrap_servers=servers, group_id=None, auto_offset_reset="earliest", enable_auto_commit=False)
    partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
    consumer.assign(partitions)
    pipeline = {"naive": Naive, "competent": Competent}[kind](open_database(url), consumer, kind, model, int(every))

    def answer(request: Message) -> Message:
        if "skip" in request:
            for partition, end in request["skip"].items():
                consumer.seek(TopicPartition(topic, int(partition)), end)
                pipeline.positions[int(partition)] = end
            return {}
        before, left_out = pipeline.embedded, pipeline.left_out
        ends = {int(partition): end for partition, end in request["ends"].items()}
        seconds = timed(lambda: pipeline.run(ends))
        return {
            "seconds": seconds,
            "embedded": pipeline.embedded - before,
            "left_out": pipeline.left_out - left_out,
        }

    return answer


if __name__ == "__main__":
    serve(lambda: begin(*sys.argv[1:]))
