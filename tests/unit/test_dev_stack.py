"""Ports, choices and the command line of the development stack, without starting anything."""

import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from livedex.cli import dev
from livedex.dev.kafka import free_port, is_free, server_properties
from livedex.dev.postgres import Postgres
from livedex.dev.stack import Stack
from livedex.errors import ConfigError


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on loopback that somebody else has."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


def test_free_port_stays_clear_of_outgoing_connections(taken_port: int) -> None:
    """A chosen port is free and below the range from which the kernel serves clients."""
    assert not is_free(taken_port)
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert free_port() < first


@pytest.mark.parametrize("name", ["kafka", "postgres"])
def test_taken_port_is_named(tmp_path: Path, taken_port: int, name: str) -> None:
    """When somebody else has the port, the error names it and the option, and nothing was started."""
    stack = Stack(tmp_path)
    with pytest.raises(ConfigError, match=rf"port {taken_port} of {name} is taken .* --{name}-port N"):
        stack._choose(
            kafka_port=taken_port if name == "kafka" else None, postgres_port=taken_port if name == "postgres" else None
        )


def test_choices_are_kept(tmp_path: Path) -> None:
    """Ports and password stay those of the first start; a given port replaces the remembered one."""
    Stack(tmp_path)._choose(None, None)
    first = Stack(tmp_path).addresses()
    Stack(tmp_path)._choose(None, None)
    assert Stack(tmp_path).addresses() == first
    port = free_port()
    Stack(tmp_path)._choose(None, port)
    assert Stack(tmp_path).postgres.port == port
    assert Stack(tmp_path).addresses().kafka_bootstrap_servers == first.kafka_bootstrap_servers


def test_password_is_nobody_elses(tmp_path: Path) -> None:
    """Only the owner can read the file with the superuser's password."""
    Stack(tmp_path)._choose(None, None)
    assert (tmp_path / "stack.json").stat().st_mode & 0o077 == 0


def test_reader_without_the_lock_sees_whole_choices(tmp_path: Path) -> None:
    """Who reads the choices while another `up` writes them gets those before or those after, never half a file."""
    stack = Stack(tmp_path)
    stack._choose(None, None)
    before = (tmp_path / "stack.json").read_text()
    with (tmp_path / "stack.json").open() as reader:
        stack._choose(None, free_port())
        assert reader.read() == before
    assert (tmp_path / "stack.json").read_text() != before


def test_no_stack_yet(tmp_path: Path) -> None:
    """Asking for addresses of a stack that was never started says how to start it; stopping it is fine."""
    with pytest.raises(ConfigError, match=r"there is no stack in .*run `livedex dev up` first"):
        Stack(tmp_path / "new").addresses()
    Stack(tmp_path / "new").down()
    assert not (tmp_path / "new").exists()


def test_one_at_a_time(tmp_path: Path) -> None:
    """While one `up` or `down` works on a folder, another one waits."""
    stack = Stack(tmp_path)
    stack._choose(None, None)
    other = threading.Thread(target=stack.down)
    with stack._locked():
        other.start()
        while not re.search(rf"-> FLOCK .* {os.getpid()} ", Path("/proc/locks").read_text()):
            assert other.is_alive(), "it did not wait"
    other.join(10)
    assert not other.is_alive()


def test_foreign_file_is_not_overwritten(tmp_path: Path) -> None:
    """A stack.json that livedex did not write is an error, not a crash and not a new stack."""
    (tmp_path / "stack.json").write_text('{"name": "somebody else"}')
    with pytest.raises(ConfigError, match="is not what livedex wrote"):
        Stack(tmp_path).addresses()


def test_database_url_is_whole(tmp_path: Path) -> None:
    """The URL has everything that libpq needs."""
    server = Postgres(directory=tmp_path, port=5433, password="secret")
    assert server.url == "postgresql://livedex:secret@127.0.0.1:5433/livedex"


def test_properties_point_into_the_folder() -> None:
    """The broker listens on loopback only and keeps its data where it is told."""
    lines = server_properties(Path("/x/data"), 1, 2).splitlines()
    assert "listeners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2" in lines
    assert "log.dirs=/x/data" in lines


def test_env_prints_two_exports_on_stdout(tmp_path: Path) -> None:
    """`livedex dev env` prints what `eval` takes, and nothing else."""
    Stack(tmp_path)._choose(None, None)
    addresses = Stack(tmp_path).addresses()
    result = CliRunner().invoke(dev.app, ["env", "--dir", str(tmp_path)])
    assert result.stdout == (
        f"export LIVEDEX_KAFKA_BOOTSTRAP_SERVERS='{addresses.kafka_bootstrap_servers}'\n"
        f"export LIVEDEX_DATABASE_URL='{addresses.database_url}'\n"
    )
