"""What livedex needs of Postgres: pgvector, migrations, roles and rights, memory, disk, and who embeds texts for SQL."""

import shutil
import time
from pathlib import Path
from typing import Any

from livedex import migrate
from livedex.core import health_rules
from livedex.core.mailbox import PRESENCE_CLASS
from livedex.core.upkeep import build_memory
from livedex.database import Connection, check_pgvector, query
from livedex.errors import ConfigError

LOCAL = ("", "localhost", "127.0.0.1", "::1")


class PostgresChecks:
    """On one connection. Errors: ConfigError says what to do; what Postgres refuses is a psycopg error."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _row(self, name: str, **arguments: Any) -> tuple[Any, ...]:
        row = self._connection.execute(query("doctor", name), arguments).fetchone()
        assert row is not None
        return row

    def pgvector(self) -> str:
        """It is there, and of a version without known faults."""
        warning = check_pgvector(self._connection)
        if warning:
            raise ConfigError(warning)
        return "version is sound"

    def migrations(self) -> str:
        """The database is of this version."""
        warnings = migrate.check(self._connection)
        return "; ".join(warnings) or "the database is up to date"

    def roles(self) -> str:
        """The four roles are there and have what they should; grants name roles that are there."""
        missing, outside, sees_grants = self._row("roles")
        if missing:
            raise ConfigError(
                f"the server has no role {', '.join(missing)}: run livedex migrate as a role that may create roles"
            )
        if outside:
            raise ConfigError("livedex_query is no member of livedex_search: GRANT livedex_search TO livedex_query")
        (stale,) = self._row("stale_grants") if sees_grants else ([],)
        if stale:
            raise ConfigError(
                f"grants name roles that are gone: livedex revoke {stale[0]}, and grant again to who has the name now"
            )
        return "livedex_owner, livedex_indexer, livedex_query and livedex_search are there"

    def permissions(self) -> str:
        """The role may run a worker, and has each right that it needs for it."""
        role, indexes, searches, sees = self._row("may_run")
        may = [command for command, granted in (("index", indexes), ("serve", searches)) if granted and sees]
        if not may:
            raise ConfigError(
                f"{role} may run no worker: grant it livedex_indexer for livedex index, livedex_query for livedex serve"
            )
        for command in may:
            (lacking,) = self._row("lacking", worker=command)
            if lacking:
                raise ConfigError(
                    f"{role} lacks {lacking[0]}, which livedex {command} needs: a right that livedex migrate gave was taken "
                    "away, grant it again"
                )
        return f"{role} may run {' and '.join(f'livedex {command}' for command in may)}"

    def buffers(self) -> str:
        """The server has memory for the vector index."""
        shared, maintenance = self._row("memory")
        rows = self._connection.execute(query("doctor", "embeddings")).fetchall() if self._known() else []
        needed = {name: build_memory(size, dimension=dimension, storage=storage) for name, size, dimension, storage in rows}
        wrong = health_rules.buffers(shared, maintenance, needed)
        if wrong is not None:
            raise ConfigError(wrong)
        most = f", the largest index is built in {max(needed.values()) // 2**20} MB" if needed else ""
        return f"shared_buffers is {shared // 2**20} MB, maintenance_work_mem {maintenance // 2**20} MB{most}"

    def _known(self) -> bool:
        return bool(self._connection.execute("select to_regclass('livedex.generation') is not null").fetchone() == (True,))

    def clock_ahead(self) -> float:
        """Seconds by which the database's clock is ahead of this one."""
        before = time.time()
        (there,) = self._row("clock")
        return float(there - (before + time.time()) / 2)

    def split(self) -> list[str]:
        """Topics with documents whose metadata came in a later event than their text."""
        (topics,) = self._row("split")
        return list(topics)

    def disk(self) -> dict[str, tuple[int, int]]:
        """(free, all) bytes of the database's disk, where it is on this machine and this role may know where."""
        if self._connection.info.host not in LOCAL and not self._connection.info.host.startswith("/"):
            return {}
        (folder,) = self._row("folder")
        if folder is None or not Path(folder).is_dir():
            return {}
        found = shutil.disk_usage(folder)
        return {"the disk of postgres": (found.free, found.total)}

    def texts(self) -> str:
        """Who embeds texts for SQL, and how they get there. No worker is no fault: not everybody searches so."""
        watching, by_dblink = self._row("texts", presence=PRESENCE_CLASS)
        if not watching:
            return "no query worker is connected: livedex.search embeds no new texts until livedex serve runs"
        way = "dblink" if by_dblink else "the mailbox"
        return f"livedex.search asks by {way}; query workers that are connected: {watching}"
