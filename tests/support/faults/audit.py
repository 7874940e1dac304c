"""A trail of every change of documents and progress, written by triggers, so inside the transactions that it is about."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]

# `seq` is drawn while the row is locked, so for one row it rises in the order of the commits. One sequence for both tables.
_CREATE = """
create schema audit;
create sequence audit.seq;
create table audit.document (
  seq bigint primary key default nextval('audit.seq'), at timestamptz not null default clock_timestamp(),
  txid bigint not null default txid_current(), op text not null, document_id text not null,
  content_version bigint[], metadata_version bigint[], deleted boolean not null, title text, metadata jsonb not null);
create table audit.progress (
  seq bigint primary key default nextval('audit.seq'), at timestamptz not null default clock_timestamp(),
  txid bigint not null default txid_current(), topic text not null, partition int not null,
  next_offset bigint not null, owner_epoch bigint not null, owner text not null,
  writer text not null default current_setting('application_name'));
create function audit.note_document() returns trigger language plpgsql security definer as $$
begin
  insert into audit.document (op, document_id, content_version, metadata_version, deleted, title, metadata)
  select tg_op, d.document_id, d.content_version, d.metadata_version, d.deleted, d.title, d.metadata
    from (select (case tg_op when 'DELETE' then old else new end).*) d;
  return null;
end $$;
create function audit.note_progress() returns trigger language plpgsql security definer as $$
begin
  insert into audit.progress (topic, partition, next_offset, owner_epoch, owner)
  values (new.topic, new.partition, new.next_offset, new.owner_epoch, new.owner);
  return null;
end $$;
create trigger audit after insert or update or delete on livedex.document for each row execute function audit.note_document();
create trigger audit after insert or update on livedex.source_progress for each row execute function audit.note_progress();
"""


@dataclass(frozen=True, slots=True)
class DocumentChange:
    """A document's row as one statement left it, or as it was when it was deleted."""

    seq: int
    txid: int
    op: str  # INSERT, UPDATE, DELETE: of the row
    document_id: str
    content_version: tuple[int, ...] | None
    metadata_version: tuple[int, ...] | None
    deleted: bool
    title: str | None
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ProgressChange:
    """A partition's progress as one statement left it."""

    seq: int
    at: datetime
    txid: int
    topic: str
    partition: int
    next_offset: int
    owner_epoch: int
    owner: str
    writer: str  # who sent the statement: workers name their connections


def install(url: str) -> None:
    """Begin to note."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_CREATE)


def documents(connection: Connection) -> list[DocumentChange]:
    """Every change of a document, in order."""
    rows = connection.execute(
        "select seq, txid, op, document_id, content_version, metadata_version, deleted, title, metadata"
        "  from audit.document order by seq"
    )
    return [
        DocumentChange(seq, txid, op, name, _version(content), _version(about), deleted, title, metadata)
        for seq, txid, op, name, content, about, deleted, title, metadata in rows
    ]


def progress(connection: Connection) -> list[ProgressChange]:
    """Every claim and every step, in order."""
    rows = connection.execute(
        "select seq, at, txid, topic, partition, next_offset, owner_epoch, owner, writer from audit.progress order by seq"
    )
    return [ProgressChange(*row) for row in rows]


def _version(stored: list[int] | None) -> tuple[int, ...] | None:
    return tuple(stored) if stored is not None else None
