"""The tools that check what is deployed: built from the Go module in `checks`, whose go.sum says of exactly which sources.

Building them takes minutes the first time, so tests that use them are marked `accept`.
"""

import functools
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from livedex import resources

CHECKS = Path(__file__).with_name("checks")
PACKAGES = {
    "dockerfile": "./dockerfile",
    "compose": "./compose",
    "helm": "helm.sh/helm/v3/cmd/helm",
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform",
}


def absent(why: str) -> None:
    """Skip this test because something is not installed; on continuous integration fail."""
    if os.environ.get("CI"):
        raise AssertionError(why)
    pytest.skip(why)


@functools.cache
def built(name: str) -> Path:
    """The program, built now unless these sources were built before; kept in the user's cache."""
    if not shutil.which("go"):
        absent(f"{name} is built from source, and there is no go: install Go 1.26 or newer")
    sources = sorted(path for path in CHECKS.rglob("*") if path.is_file())
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    program = resources.cache_dir() / "checks" / digest / name
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        draft = program.with_name(f"{name}-{os.getpid()}")
        environment = {**os.environ, "CGO_ENABLED": "0"}
        _run(["go", "build", "-o", str(draft), PACKAGES[name]], cwd=CHECKS, env=environment, timeout=1200)
        draft.replace(program)
    return program


def run(name: str, *arguments: str, stdin: str = "", code: int = 0) -> str:
    """What the tool prints; it must end with `code`."""
    return _run([str(built(name)), *arguments], input=stdin, code=code, timeout=120)


@functools.cache
def module(path: str, version: str) -> Path:
    """The folder of a Go module's sources, which the module proxy has; checked against the public log of their digests."""
    if not shutil.which("go"):
        absent(f"the sources of {path} come from the module proxy, and there is no go: install Go 1.26 or newer")
    found: dict[str, Any] = json.loads(_run(["go", "mod", "download", "-json", f"{path}@{version}"], cwd=CHECKS, timeout=600))
    return Path(found["Dir"])


def _run(command: Sequence[str], *, code: int = 0, **options: Any) -> str:
    done: subprocess.CompletedProcess[str] = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == code, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout
