"""A deployment: the database is migrated under load, and old and new workers share the group."""

import io
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from livedex import migrate, resources
from livedex.database import connect
from livedex.dev.stack import Addresses
from support.faults.arena import Arena, World
from support.faults.nursery import Nursery
from support.workers import Process

OLDER = "7813ebf7"  # a commit that knows the migrations up to 0008

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


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An older livedex, out of this repository's history."""
    command = ["git", "archive", OLDER, "workers", "schema", "migrations"]
    root = resources.migrations_dir().parent
    found = subprocess.run(command, cwd=root, capture_output=True, check=False) if shutil.which("git") else None
    if found is None or found.returncode:
        pytest.skip(f"the commit {OLDER} is not in this checkout: an older livedex needs a clone with its history")
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.scenario(35, seconds=45)
def test_35_an_older_livedex_in_the_group(world: World, older: Path, empty_database_url: str, nursery: Nursery) -> None:
    """Workers of an older livedex, with its migrations, go on while the database is migrated to this one under load, share the
    group with workers of this one, start again beside them, and leave the partitions to them in the end.
    """
    with connect(empty_database_url) as connection:
        migrate.migrate(connection, migrate.load(older / "migrations"))
    addresses = Addresses(kafka_bootstrap_servers=world.direct.kafka_bootstrap_servers, database_url=empty_database_url)
    with Arena(replace(world, direct=addresses, seen=addresses), nursery=nursery, applied_by=older / "workers") as arena:

        def of_the_older() -> Process:
            worker = arena.workers.start("index", arena.config, PYTHONPATH=str(older / "workers"))
            arena.alive.append(worker)
            return worker

        load = arena.load(8_000, rate=100)
        old, again = of_the_older(), of_the_older()
        arena.wait_for(lambda: arena.applied() > 100, what="the work to be under way")
        with arena.connect() as connection:
            newer = migrate.migrate(connection, migrate.load())
        assert newer, "there must be migrations that the older one does not know"
        new = arena.worker()
        arena.terminate(again)
        again = of_the_older()
        assert newer[0] in again.log(), "it must be the older one, and say that the database is newer"
        pids = {worker.popen.pid for worker in (old, new, again)}
        arena.wait_for(lambda: arena.owners() == pids, what="all three to own something")
        before = arena.applied()
        more = arena.load(3_000, rate=100)  # the first may be done: on a busy machine a process takes long to begin
        arena.wait_for(lambda: arena.applied() > before + 100, what="the work to go on")
        arena.terminate(old)
        arena.terminate(again)
        arena.wait_for(lambda: arena.owners() == {new.popen.pid}, what="the new one to have it all")
        load.stop()
        more.stop()
        arena.verify(arena.settle())
