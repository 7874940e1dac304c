"""Others at work in the same database: who locks in another order, and transactions that have to be begun again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from support.faults.arena import Arena
from support.waiting import until

_FAILING = """
create sequence audit.failing;
create function audit.fail() returns trigger language plpgsql as $$
begin
  if nextval('audit.failing') % {} = 0 then
    raise exception 'could not serialize access' using errcode = 'serialization_failure';
  end if;
  return new;
end $$;
create trigger failing before update on livedex.source_progress for each row execute function audit.fail();
"""
_END = """
select pg_terminate_backend(pid) from pg_stat_activity
 where datname = current_database() and backend_xid is not null and pid <> pg_backend_pid() and application_name like '%-%-%'
 limit 1"""


@contextmanager
def serialization_failures(arena: Arena, *, of: int) -> Iterator[None]:
    """One in so many writes of the progress fails as a serializable transaction does."""
    with arena.connect() as connection:
        connection.execute(sql.SQL(_FAILING).format(of))
        try:
            yield
        finally:
            connection.execute("drop trigger failing on livedex.source_progress")


def deadlock(arena: Arena) -> bool:
    """Lock documents first and the progress then, which is the other way round than workers do; whether a worker gave way."""
    with arena.connect() as connection:
        connection.execute("set deadlock_timeout = '60s'")  # whoever waits first looks first: that is the worker
        with connection.transaction():
            connection.execute("select from livedex.document for update")
            until(lambda: blocked_by(arena, connection.info.backend_pid), what="a worker to wait for a document")
            try:
                connection.execute("select from livedex.source_progress for update")
            except psycopg.errors.DeadlockDetected:
                return False
    return True


def blocked_by(arena: Arena, pid: int) -> list[tuple[Any, ...]]:
    """Sessions that wait for this one."""
    return arena.rows("select pid from pg_stat_activity where %s = any(pg_blocking_pids(pid))", pid)


def end_a_writer(connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
    """End a session of a worker that has written and not committed, when there is one."""
    return bool(connection.execute(_END).fetchall())
