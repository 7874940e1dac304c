"""A backup that was taken under load, restored on another server: the worker goes on from the progress that is in it."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from livedex.dev.postgres import binary
from livedex.dev.stack import Addresses
from support.database import url_of
from support.faults import servers
from support.faults.arena import Arena, Ends
from support.faults.lives import shows_the_fold
from support.faults.topics import reset, stopped
from support.psql import psql

pytestmark = pytest.mark.accept

PATIENCE = 180  # seconds


def run(program: str, *arguments: str) -> str:
    """What one of Postgres's own programs prints."""
    done = subprocess.run([str(binary(program)), *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{program} ended with {done.returncode}: {done.stderr}"
    return done.stdout


@contextmanager
def restored(url: str, dump: Path, folder: Path) -> Iterator[str]:
    """The URL of a database on a server of its own that the dump was restored to, as docs/operations.md says."""
    roles = run("pg_dumpall", "--roles-only", "--no-role-passwords", "--dbname", url)
    with servers.server(folder) as other:
        psql(other.url, roles, "-v", "ON_ERROR_STOP=0")  # the superuser is there already
        with psycopg.connect(other.url, autocommit=True) as connection:
            connection.execute("create database docs")
        target = url_of(other.url, "docs")
        run("pg_restore", "--exit-on-error", "--jobs=2", "--dbname", target, str(dump))
        psql(target, "analyze")
        yield target


def move(arena: Arena, url: str) -> None:
    """From now on the arena and its workers look at this database."""
    arena.reader.stop()
    addresses = Addresses(kafka_bootstrap_servers=arena.world.direct.kafka_bootstrap_servers, database_url=url)
    arena.world = replace(arena.world, direct=addresses, seen=addresses)
    arena.workers.database_url = url


def backed_up(arena: Arena, dump: Path) -> tuple[Ends, Ends]:
    """Let a worker work, dump the database meanwhile, and lose both later; progress before the dump, and at the end."""
    load = arena.load(4_000, rate=80)
    worker = arena.worker()
    arena.wait_for(lambda: arena.applied() > 300, timeout=PATIENCE, what="the work to be under way")
    before = arena.progress()
    run("pg_dump", "--format=custom", "--file", str(dump), "--dbname", arena.world.direct.database_url)
    dumped = arena.applied()
    arena.wait_for(lambda: arena.applied() > dumped + 300, timeout=PATIENCE, what="the work to go on behind the dump")
    assert load.running, "the dump must be taken under load"
    arena.kill(worker)
    load.stop()
    return before, arena.progress()


def at_least(progress: Ends, other: Ends) -> bool:
    """Whether the progress is nowhere behind the other."""
    return all(progress[partition] >= offset for partition, offset in other.items())


def test_the_worker_goes_on_from_the_backups_progress(open_arena: Callable[..., Arena], tmp_path: Path) -> None:
    """A dump is one moment: restored, the index is the fold up to its own progress. What came behind it is read from Kafka
    again, although the group's offsets there are ahead, and in the end the index is the fold of the whole log.
    """
    arena = open_arena(documents=100)
    before, lost = backed_up(arena, tmp_path / "docs.dump")
    with restored(arena.world.direct.database_url, tmp_path / "docs.dump", tmp_path / "other") as url:
        assert urlsplit(url).port != urlsplit(arena.world.direct.database_url).port
        move(arena, url)
        found = arena.progress()
        assert at_least(found, before)
        assert at_least(lost, found)
        assert found != lost, "there must be something to read again"
        arena.verify_now()
        arena.worker()
        arena.settle(timeout=PATIENCE)
        arena.verify_now()
        arena.terminate(arena.alive[0])


def test_a_backup_that_is_older_than_what_kafka_keeps(
    open_arena: Callable[..., Arena], stack: Addresses, tmp_path: Path
) -> None:
    """Where retention has passed the restored progress nothing is skipped in silence: the source stops, and says what to do.
    After the reset the index is the fold of what the log has.
    """
    arena = open_arena(documents=100)
    _, lost = backed_up(arena, tmp_path / "docs.dump")
    admin = KafkaAdminClient(bootstrap_servers=stack.kafka_bootstrap_servers)
    admin.delete_records({TopicPartition(*partition): offset for partition, offset in lost.items()})
    admin.close()
    with restored(arena.world.direct.database_url, tmp_path / "docs.dump", tmp_path / "other") as url:
        move(arena, url)
        found = arena.progress()
        worker = arena.worker()
        arena.wait_for(stopped(arena, "begins at offset"), timeout=PATIENCE, what="the source to be stopped")
        stands = [partition for partition, offset in arena.progress().items() if offset == found[partition] < lost[partition]]
        assert stands, "progress must stand where the log no longer has what comes next"
        arena.load(600)  # the producers send what there is again
        for load in arena.loads:
            load.finish()
        epoch = reset(arena)
        records = arena.settle(timeout=PATIENCE)
        shows_the_fold(arena, records, epoch=epoch)
        arena.terminate(worker)
