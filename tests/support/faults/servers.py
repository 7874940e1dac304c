"""Postgres servers of the harness's own, which scenarios may stop, crash and fill; and addresses that lead through proxies."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from livedex.dev.kafka import free_port
from livedex.dev.postgres import STOP_SECONDS, SUPERUSER, Postgres, binary, privileges
from livedex.dev.process import ENVIRONMENT
from support.database import url_of
from support.faults.proxy import Proxy

PASSWORD = "of-a-scenario"
SHARED_BUFFERS = "128MB"
_MAY_CHANGE = "default_transaction_read_only = off"


def through(url: str, proxy: Proxy) -> str:
    """The same database, reached through the proxy."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{proxy.port}").geturl()


def port_of(address: str) -> int:
    """The port in a URL, or in host:port."""
    port = urlsplit(address if "//" in address else f"//{address}").port
    assert port is not None, address
    return port


@dataclass(frozen=True, slots=True, kw_only=True)
class Server(Postgres):
    """A server that a scenario owns."""

    password: str = field(default=PASSWORD, repr=False)

    def up(self) -> None:
        """Start it, and wait until it answers."""
        self.start()
        self.wait_ready()

    def crash(self) -> None:
        """End it as `pg_ctl stop -m immediate` does: no checkpoint, so that it recovers at the next start."""
        self.daemon.stop(signal.SIGQUIT, STOP_SECONDS)
        self.stop()

    def execute(self, *statements: str) -> None:
        """As the superuser, also where the server is set to read only."""
        with psycopg.connect(self.url, autocommit=True, options=f"-c {_MAY_CHANGE.replace(' ', '')}") as connection:
            for statement in statements:
                connection.execute(statement)


@contextmanager
def server(directory: Path) -> Iterator[Server]:
    """A running server with a new cluster."""
    own = Server(directory=directory, port=free_port())
    own.up()
    try:
        own.execute(f"alter system set shared_buffers = '{SHARED_BUFFERS}'")  # from the next start on
        yield own
    finally:
        own.stop()


@contextmanager
def standby(of: Server, directory: Path, *, port: int) -> Iterator[Server]:
    """A running copy of a server that follows it by streaming through `port`, without holding up its commits."""
    own = Server(directory=directory, port=free_port())
    with standby_of(f"host=127.0.0.1 port={port} user={SUPERUSER} password={of.password}", own):
        yield own


@contextmanager
def standby_of(source: str, own: Server) -> Iterator[None]:
    """Let a server run as a copy of the one that `source` leads to."""
    own.data.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    own.data.mkdir(mode=0o700)
    if os.geteuid() == 0:
        shutil.chown(own.data, "nobody")
    source = f"{source} application_name=standby"
    command = [str(binary("pg_basebackup")), "-D", str(own.data), "-d", source, "--write-recovery-conf", "--checkpoint=fast"]
    done = subprocess.run([*privileges(), *command], capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    try:
        own.up()
        yield
    finally:
        own.stop()


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system of so many megabytes that a server can write to; the test is skipped where none can be mounted."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # a server looks into it with the rights of its own user
        place = Path(folder) / "disk"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "tmpfs", str(place)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("a small file system can only be mounted by root")
        try:
            yield place
        finally:
            subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=True)


@contextmanager
def in_tablespace(server: Server, template: str, disk: Path) -> Iterator[str]:
    """A database whose tables are all on that disk."""
    place = disk / "tables"
    place.mkdir(mode=0o700)
    owner = server.data.stat()
    os.chown(place, owner.st_uid, owner.st_gid)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("create tablespace small location {}").format(str(place)))
        connection.execute(sql.SQL("create database small template {} tablespace small").format(sql.Identifier(template)))
        try:
            yield url_of(server.url, "small")
        finally:
            connection.execute("drop database small with (force)")
            connection.execute("drop tablespace small")


def fill(disk: Path) -> Path:
    """Leave no byte free; the file that takes them."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return ballast
