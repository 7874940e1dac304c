"""Migrations: one way to a database, whoever runs them, applied once, and never half."""

import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from livedex import migrate, resources
from livedex.config import Settings
from livedex.database import Connection, check_pgvector, connect, judge_pgvector
from livedex.errors import ConfigError, TimedOutError
from livedex.query.app import QueryApp
from support.psql import dump_schema, psql, psql_file
from support.waiting import until
from support.workers import Workers


def run_all(url: str, directory: Path | None = None) -> list[str]:
    """Apply what is pending; the versions that were applied."""
    with connect(url) as connection:
        return migrate.migrate(connection, migrate.load(directory))


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the migrations that a test may change."""
    return Path(shutil.copytree(resources.migrations_dir(), tmp_path / "migrations"))


def add(directory: Path, name: str, text: str) -> None:
    """One more migration."""
    (directory / name).write_text(text)


def test_migrations_and_the_canonical_sql_give_the_same_database(database_url: str, empty_database_url: str) -> None:
    """pg_dump sees no difference between a migrated database and one made from schema/sql by hand."""
    for path in sorted((resources.schema_dir() / "sql").glob("*.sql")):
        psql_file(empty_database_url, path)
    by_hand = dump_schema(empty_database_url)
    assert "CREATE TABLE livedex.document_chunk" in by_hand
    assert "GRANT" in by_hand
    assert dump_schema(database_url) == by_hand


def test_what_is_applied_beside_workers_takes_nothing_away() -> None:
    """A `pre` migration drops and renames nothing: workers of the version before, and searches under way, may still need it."""
    for migration in migrate.load():
        if "_pre_" in migration.version:
            statements = re.sub(r"\$\$.*?\$\$|--[^\n]*|/\*.*?\*/", "", migration.body, flags=re.DOTALL)
            assert not re.search(r"\b(drop (function|table|view|type|column)|rename)\b", statements, re.IGNORECASE), (
                migration.version
            )


def test_the_printed_sql_gives_the_same_database(database_url: str, empty_database_url: str, workers: Workers) -> None:
    """What `livedex migrate --sql` prints runs through psql, gives the same schema, and leaves nothing to migrate."""
    printed = workers.run("migrate", "--sql")
    assert printed.returncode == 0
    psql(empty_database_url, printed.stdout)
    assert dump_schema(empty_database_url) == dump_schema(database_url)
    again = workers.run("migrate", LIVEDEX_DATABASE_URL=empty_database_url)
    assert (again.returncode, again.stdout) == (0, "")
    assert "up to date" in again.stderr
    assert run_all(empty_database_url) == []


def test_any_migration_may_be_the_first_of_its_session(database_url: str, empty_database_url: str) -> None:
    """As when one version of livedex after another migrates a database."""
    migrations = migrate.load()
    for number in range(1, len(migrations) + 1):
        with connect(empty_database_url) as connection:
            assert migrate.migrate(connection, migrations[:number]) == [migrations[number - 1].version]
    assert dump_schema(empty_database_url) == dump_schema(database_url)


def test_each_printed_migration_may_be_the_first_of_its_session(database_url: str, empty_database_url: str) -> None:
    """As when each version's SQL is applied by hand."""
    for migration in migrate.load():
        psql(empty_database_url, migrate.script([migration]))
    assert dump_schema(empty_database_url) == dump_schema(database_url)


def test_check_says_what_is_missing(workers: Workers, empty_database_url: str) -> None:
    """`migrate --check` ends with 1 and names what is missing, changes nothing, and ends with 0 afterwards."""
    missing = workers.run("migrate", "--check", LIVEDEX_DATABASE_URL=empty_database_url)
    assert missing.returncode == 1
    assert "0001_pre_schema" in missing.stderr
    assert "livedex migrate" in missing.stderr
    with connect(empty_database_url) as connection:
        assert connection.execute("select to_regnamespace('livedex')").fetchone() == (None,)
    done = workers.run("migrate", LIVEDEX_DATABASE_URL=empty_database_url)
    assert (done.returncode, done.stdout) == (0, "")
    assert "applied 0001_pre_schema" in done.stderr
    assert workers.run("migrate", "--check", LIVEDEX_DATABASE_URL=empty_database_url).returncode == 0


def test_two_runs_at_once_apply_everything_once(empty_database_url: str) -> None:
    """Of concurrent migrators one applies all, in order, and the others find nothing to do."""
    everything = [migration.version for migration in migrate.load()]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run_all, [empty_database_url] * 4))
    assert sorted(results) == [[], [], [], everything]
    with connect(empty_database_url) as connection:
        rows = connection.execute("select version from livedex.schema_migration order by applied_at").fetchall()
    assert [version for (version,) in rows] == everything


def test_a_migration_is_applied_whole_or_not_at_all(database_url: str, copied: Path) -> None:
    """When a statement fails, the file's other statements are undone, it is not recorded, and the lock is free again."""
    add(copied, "0090_pre_good.sql", "-- migrate:up\ncreate table livedex.good ();\n")
    add(copied, "0091_pre_bad.sql", "-- migrate:up\ncreate table livedex.half ();\nselect 1 / 0;\n")
    with pytest.raises(errors.DivisionByZero):
        run_all(database_url, copied)
    with connect(database_url) as connection:
        assert connection.execute("select to_regclass('livedex.good') is null, to_regclass('livedex.half')").fetchone() == (
            False,
            None,
        )
    add(copied, "0091_pre_bad.sql", "-- migrate:up\ncreate table livedex.half ();\n-- migrate:down\nselect 1 / 0;\n")
    assert run_all(database_url, copied) == ["0091_pre_bad"]


def test_an_edited_file_is_refused(database_url: str, copied: Path) -> None:
    """A file that was applied and changed since is named, and nothing is applied."""
    path = copied / "0003_pre_views.sql"
    path.write_text(path.read_text() + "-- edited\n")
    add(copied, "0090_pre_more.sql", "-- migrate:up\ncreate table livedex.more ();\n")
    with pytest.raises(ConfigError, match="0003_pre_views was edited"):
        run_all(database_url, copied)
    with connect(database_url) as connection:
        assert connection.execute("select to_regclass('livedex.more')").fetchone() == (None,)


def test_a_database_newer_than_the_code_is_refused(database_url: str, workers: Workers) -> None:
    """An older livedex neither migrates a database that needs a newer one nor works on it, and says to update livedex."""
    with connect(database_url) as connection:
        connection.execute("insert into livedex.schema_migration (version, sha256) values ('0099_post_future', 'x')")
        with pytest.raises(ConfigError, match="0099_post_future, which this livedex does not know: update livedex"):
            migrate.check(connection)
        with pytest.raises(ConfigError, match="0099_post_future, which this livedex does not know: update livedex"):
            run_all(database_url)
    done = workers.run("status")
    assert done.returncode == 1
    assert "0099_post_future" in done.stderr


def test_workers_start_beside_what_was_prepared_for_a_newer_version(database_url: str, workers: Workers) -> None:
    """With a `pre` migration of a newer livedex, workers run and commands work, with a warning; only migrate refuses."""
    with connect(database_url) as connection:
        connection.execute("insert into livedex.schema_migration (version, sha256) values ('0099_pre_future', 'x')")
        (warning,) = migrate.check(connection)
    assert "0099_pre_future" in warning
    with workers.in_thread(QueryApp(Settings(database_url=database_url, embedder="hash", http_port=0))):
        pass
    done = workers.run("status")
    assert done.returncode == 0
    assert "warning: the database is newer than this livedex: it has 0099_pre_future" in done.stderr.replace("\n", " ")
    for arguments in (("migrate",), ("migrate", "--check")):
        done = workers.run(*arguments)
        assert done.returncode == 1
        assert "0099_pre_future, which this livedex does not know: update livedex" in done.stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("1_pre_short.sql", "-- migrate:up\nselect 1;"),
        ("0090_mid_phase.sql", "-- migrate:up\nselect 1;"),
        ("0090_pre_Upper.sql", "-- migrate:up\nselect 1;"),
        ("0090_pre_.sql", "-- migrate:up\nselect 1;"),
        ("0090_pre_without_mark.sql", "select 1;"),
    ],
)
def test_a_file_of_another_form_is_refused(copied: Path, name: str, text: str) -> None:
    """A misnamed file, or one without the mark, is never skipped in silence."""
    add(copied, name, text)
    with pytest.raises(ConfigError, match=f"{name} is no migration"):
        migrate.load(copied)


def test_an_index_is_built_concurrently_beside_a_migrator_that_waits(database_url: str, copied: Path) -> None:
    """A transaction:false migration runs outside a transaction, and the second migrator's wait does not stop it."""
    add(
        copied,
        "0090_post_index.sql",
        "-- migrate:up transaction:false\ncreate index concurrently later on livedex.source (state);\n",
    )
    results: dict[str, list[str]] = {}

    def run(name: str) -> threading.Thread:
        thread = threading.Thread(target=lambda: results.update({name: run_all(database_url, copied)}))
        thread.start()
        return thread

    with connect(database_url) as blocker, connect(database_url) as observer:
        with blocker.transaction():
            blocker.execute("lock table livedex.source in row exclusive mode")
            first = run("first")
            until(lambda: sessions(observer, "create index concurrently%", "active"), what="the index build")
            second = run("second")
            until(lambda: sessions(observer, "select pg_try_advisory_lock%", "idle"), what="the second migrator")
        first.join(30)
        second.join(30)
        valid = observer.execute("select indisvalid from pg_index where indexrelid = 'livedex.later'::regclass").fetchone()
    assert results == {"first": ["0090_post_index"], "second": []}
    assert valid == (True,)


def sessions(connection: Connection, query: str, state: str) -> int:
    """How many other sessions of this database run, or ran last, such a statement."""
    statement = """select count(*) from pg_stat_activity
                    where datname = current_database() and pid <> pg_backend_pid() and query like %s and state = %s"""
    row = connection.execute(statement, (query, state)).fetchone()
    assert row is not None
    return int(row[0])


def test_a_migrator_gives_up_on_one_that_does_not_end(database_url: str) -> None:
    """Whoever waits longer than its patience for another migrator says so."""
    with connect(database_url) as holder, connect(database_url) as connection:
        holder.execute("select pg_advisory_lock(%s)", (migrate.LOCK_KEY,))
        with pytest.raises(TimedOutError, match="another migration"):
            migrate.migrate(connection, migrate.load(), patience=0.2)


@pytest.mark.parametrize("version", ["0.7.4", "0.5", "0.7.99"])
def test_a_pgvector_without_iterative_scans_is_refused(version: str) -> None:
    """Below 0.8.0 nothing works."""
    with pytest.raises(ConfigError, match=rf"pgvector is {version}, livedex needs 0\.8\.0"):
        judge_pgvector(version)


@pytest.mark.parametrize(
    ("version", "sound"),
    [("0.8.0", False), ("0.8.3", False), ("0.8.4", True), ("0.8.10", True), ("0.9.0", True), ("1.0", True)],
)
def test_a_pgvector_with_a_known_fault_is_warned_of(version: str, sound: bool) -> None:
    """Below 0.8.4 an index can be damaged; versions compare by number."""
    warning = judge_pgvector(version)
    assert (warning is None) is sound
    assert sound or "REINDEX" in (warning or "")


def test_the_installed_pgvector_is_judged(database_url: str, workers: Workers) -> None:
    """Commands warn of an old extension and go on, and refuse one that is too old, or none."""
    with connect(database_url) as connection:
        connection.execute("set allow_system_table_mods = on")

        def pretend(version: str) -> Any:
            connection.execute("update pg_extension set extversion = %s where extname = 'vector'", (version,))
            return check_pgvector(connection)

        assert "0.8.1" in pretend("0.8.1")
        done = workers.run("status", "--json")
        assert done.returncode == 0
        assert "warning: pgvector is 0.8.1" in done.stderr
        assert "warning" not in done.stdout
        with pytest.raises(ConfigError, match=r"pgvector is 0\.7\.0"):
            pretend("0.7.0")
        done = workers.run("index")
        assert done.returncode == 1
        assert "pgvector is 0.7.0, livedex needs 0.8.0" in done.stderr
        connection.execute("drop extension vector cascade")
        with pytest.raises(ConfigError, match="no extension vector: run livedex migrate"):
            check_pgvector(connection)


def test_a_migration_begins_by_judging_pgvector(empty_database_url: str) -> None:
    """An installed extension that is too old is named before the first file is applied; one with a fault is warned of."""
    warnings: list[str] = []
    with connect(empty_database_url) as connection:
        connection.execute("create extension vector")
        connection.execute("set allow_system_table_mods = on")
        connection.execute("update pg_extension set extversion = '0.7.0' where extname = 'vector'")
        with pytest.raises(ConfigError, match=r"pgvector is 0\.7\.0, livedex needs 0\.8\.0"):
            migrate.migrate(connection, migrate.load())
        assert connection.execute("select to_regnamespace('livedex')").fetchone() == (None,)
        connection.execute("update pg_extension set extversion = '0.8.1' where extname = 'vector'")
        assert migrate.migrate(connection, migrate.load(), warn=warnings.append)
    assert [warning.partition(":")[0] for warning in warnings] == ["pgvector is 0.8.1"]


@pytest.mark.parametrize(("version", "says"), [("0.7.4", r"pgvector is 0\.7\.4, livedex needs"), (None, "has no pgvector")])
def test_a_migration_judges_the_pgvector_that_it_would_install(
    empty_database_url: str, tmp_path: Path, version: str | None, says: str
) -> None:
    """Where the extension is not installed yet, the one that the server offers counts."""
    folder = tmp_path / "extension"
    folder.mkdir()
    if version:
        (folder / "vector.control").write_text(f"default_version = '{version}'\n")
    with connect(empty_database_url) as connection:
        connection.execute("select set_config('extension_control_path', %s, false)", (str(tmp_path),))
        with pytest.raises(ConfigError, match=says):
            migrate.migrate(connection, migrate.load())
        assert connection.execute("select to_regnamespace('livedex')").fetchone() == (None,)


def test_a_migration_that_met_a_deadlock_is_applied_again(database_url: str, copied: Path) -> None:
    """A worker that locks the same tables in another order costs a migration a try, and fails neither."""
    add(
        copied,
        "0090_pre_order.sql",
        "-- migrate:up\nlock table livedex.document;\nlock table livedex.chunk;\ncreate table livedex.mark ();\n",
    )
    waits = "select true from pg_locks where not granted and relation = 'livedex.chunk'::regclass"
    with connect(database_url) as worker, connect(database_url) as observer, ThreadPoolExecutor(1) as pool:
        worker.execute("set deadlock_timeout = '60s'")  # so that the migration is the one that is ended
        with worker.transaction():
            worker.execute("lock table livedex.chunk in row exclusive mode")
            migrated = pool.submit(run_all, database_url, copied)
            until(lambda: observer.execute(waits).fetchone())
            worker.execute("lock table livedex.document in row exclusive mode")
        assert migrated.result(timeout=30) == ["0090_pre_order"]


def test_migrate_prints_what_it_warns_of(database_url: str, workers: Workers) -> None:
    """`livedex migrate` and `migrate --check` say it on stderr, and end with 0."""
    with connect(database_url) as connection:
        connection.execute("set allow_system_table_mods = on")
        connection.execute("update pg_extension set extversion = '0.8.1' where extname = 'vector'")
    for arguments in (("migrate",), ("migrate", "--check")):
        done = workers.run(*arguments)
        assert (done.returncode, done.stdout) == (0, "")
        assert "warning: pgvector is 0.8.1" in done.stderr


def test_workers_refuse_a_database_that_is_not_migrated(workers: Workers, empty_database_url: str) -> None:
    """Both workers end with 1 and one line that names the remedy."""
    for command in ("index", "serve"):
        done = workers.run(command, LIVEDEX_DATABASE_URL=empty_database_url, LIVEDEX_HTTP_PORT="0", LIVEDEX_METRICS_PORT="0")
        assert done.returncode == 1
        assert "run livedex migrate" in done.stderr
        assert "Traceback" not in done.stderr
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("select to_regnamespace('livedex')").fetchone() == (None,)
