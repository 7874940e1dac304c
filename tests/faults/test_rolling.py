"""A deployment: the database is migrated under load, and old and new workers share the group."""

import shutil
from pathlib import Path

import pytest

from livedex import migrate, resources
from support.faults.arena import Arena

NEWER = """-- migrate:up
alter table livedex.document add column of_a_newer_version text;
lock table livedex.source_progress, livedex.chunk in access exclusive mode;
select pg_sleep(0.5);
-- migrate:down
"""


@pytest.mark.scenario(35, seconds=20)
def test_35_a_migration_under_load(arena: Arena, tmp_path: Path) -> None:
    """A migration that locks tables for a moment delays workers and searches and fails none; workers from before it, from after
    it, and one of the version before that starts again on the newer database, share the group.
    """
    load = arena.load(6_000, rate=100)
    old, again = arena.worker(), arena.worker()
    arena.wait_for(lambda: arena.applied() > 100, what="the work to be under way")
    newer = tmp_path / "migrations"
    shutil.copytree(resources.migrations_dir(), newer)
    (newer / "9999_pre_newer.sql").write_text(NEWER)
    with arena.connect() as connection:
        assert migrate.migrate(connection, migrate.load(newer)) == ["9999_pre_newer"]
    arena.wait_for(lambda: old.ready() and again.ready(), what="the workers from before to be well")

    new = arena.worker()
    arena.terminate(again)
    again = arena.worker()
    assert "9999_pre_newer" in again.log(), "it must have started on the newer database, and said so"
    pids = {worker.popen.pid for worker in (old, new, again)}
    arena.wait_for(lambda: arena.owners() == pids, what="all three to own something")
    before = arena.applied()
    arena.wait_for(lambda: arena.applied() > before + 100, what="the work to go on")
    load.stop()
    arena.verify(arena.settle())
