"""Postgres's own programs, from the package that the development stack runs on."""

import re
import subprocess
from pathlib import Path

from livedex.dev.postgres import binary


def psql(url: str, script: str, *options: str) -> None:
    """Run a script as an operator would; AssertionError with what psql said when a statement fails."""
    _run("psql", url, "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", *options, script=script)


def psql_file(url: str, path: Path) -> None:
    """Run one file of schema/sql, in one transaction."""
    psql(url, path.read_text(encoding="utf-8"), "--single-transaction")


def dump_schema(url: str) -> str:
    """Everything but the rows, as pg_dump writes it: comments, owners and grants included."""
    text = _run("pg_dump", url, "--schema-only")
    return re.sub(r"^\\(un)?restrict .*\n", "", text, flags=re.MULTILINE)  # a key that differs with every dump


def _run(program: str, url: str, *options: str, script: str = "") -> str:
    done = subprocess.run(
        [str(binary(program)), *options, "--dbname", url], input=script, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{program} ended with {done.returncode}: {done.stderr}"
    return done.stdout
