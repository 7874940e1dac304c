"""Builds the image as far as that goes without an engine: the steps of the Dockerfile, in a copy of this machine's root.

Each stage is an overlay over `/` in a mount namespace of its own, so steps write to the paths that the Dockerfile names and
leave nothing behind. It needs root. What differs from the image is its base: this machine's system, with its Python.
"""

import fnmatch
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.deploy import tools

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "ops" / "docker" / "Dockerfile"
# what a build machine sets so that its package index is found
INHERITED = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "PIP_CERT", "SSL_CERT_FILE")
BASE = "/usr/local/base"  # in the copy: a Python whose pip may be taken away


def read() -> dict[str, Any]:
    """The Dockerfile as BuildKit understands it, with the warnings of its linter."""
    found: dict[str, Any] = json.loads(tools.run("dockerfile", stdin=DOCKERFILE.read_text(encoding="utf-8")))
    return found


def context() -> list[Path]:
    """The files of this checkout that are sent to the builder, relative to it; `.dockerignore` leaves the others out."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    left_out = [rule.removeprefix("**/") for rule in rules if rule.startswith("**/")]
    assert rules[0] == "*", "everything is left out unless it is named"
    assert set(rules) == {"*", *(f"!{rule}" for rule in kept), *(f"**/{rule}" for rule in left_out)}, rules

    def files() -> Iterator[Path]:
        for rule in kept:
            path = ROOT / rule
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                own = file.relative_to(ROOT)
                if file.is_file() and not any(fnmatch.fnmatch(part, rule) for part in own.parts for rule in left_out):
                    yield own

    return list(files())


def impossible() -> str:
    """Why stages cannot be built here; empty when they can."""
    if os.geteuid():
        return "the steps of the Dockerfile are run in an overlay of /, which only root can mount"
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "this machine allows no mount namespaces, in which the steps of the Dockerfile run"


@dataclass(slots=True)
class Image:
    """What the steps made. `arguments` are build arguments."""

    folder: Path
    arguments: Mapping[str, str]
    environment: dict[str, str] = field(default_factory=dict)  # of the last stage, as it is so far
    user: str = "0:0"
    entrypoint: Sequence[str] = ()
    health: Sequence[str] = ()
    directory: str = "/"
    _stages: dict[str, Path] = field(default_factory=dict)
    _below: dict[Path, Path] = field(default_factory=dict)  # of a stage that begins with another: that one

    def build(self) -> "Image":
        """Run every step of every stage."""
        for stage in read()["Stages"]:
            self._begin(stage["Name"] or "final", stage["Base"])
            for step in stage["Instructions"]:
                self._step(step["Name"], step["Arguments"] or [], step["Text"])
        return self

    def run(self, *command: str, user: str | None = None, code: int = 0, lent: Mapping[Path, str] | None = None) -> str:
        """Run a command in the last stage, as its user; what it prints. `lent` are folders of this machine, by where they are
        seen.
        """
        inner = ["setpriv", f"--reuid={(user or self.user).split(':')[0]}", f"--regid={(user or self.user).split(':')[-1]}"]
        assigned = [f"{name}={value}" for name, value in self.environment.items()]
        return self._chroot(["env", "-i", *assigned, *inner, "--clear-groups", *command], code=code, lent=lent or {})

    def size(self, *folders: str, stage: str = "") -> dict[str, int]:
        """Bytes that a stage, by default the last one, adds to its base, below these folders of it."""
        added = (self._stages[stage] if stage else self._stage) / "upper"
        return {folder: _bytes(added / folder.lstrip("/")) for folder in folders}

    @property
    def _stage(self) -> Path:
        return list(self._stages.values())[-1]

    def _begin(self, name: str, base: str) -> None:
        path = os.environ["PATH"]
        before = self._stages.get(base)
        self._stages[name] = stage = self.folder / name
        for part in ("upper", "work", "root"):
            (stage / part).mkdir(parents=True)
        if before is not None:  # with its environment, and its Python
            self._below[stage] = before
            return
        self.environment = {"PATH": f"{BASE}/bin:{path}", "HOME": "/root"}
        self.environment |= {name: os.environ[name] for name in INHERITED if name in os.environ}
        self.user, self.directory = "0:0", "/"
        # the Python of this machine may be in root's home, where an image has none
        self._chroot(["sh", "-c", f"chmod o+x /root && python3 -m venv {BASE}"])

    def _step(self, name: str, arguments: list[str], text: str) -> None:
        pairs = dict(zip(arguments[::2], arguments[1::2], strict=False))
        if name == "ARG":
            self.environment |= {key: self.arguments.get(key, value) for key, value in pairs.items()}
        elif name == "ENV":
            self.environment |= {key: self._expanded(value) for key, value in pairs.items()}
        elif name == "WORKDIR":
            self.directory = text.split()[1]
            self._upper(self.directory).mkdir(parents=True, exist_ok=True)
        elif name == "USER":
            (self.user,) = arguments
            self.environment["HOME"] = "/var/cache/livedex"  # as an engine takes it from /etc/passwd
        elif name == "COPY":
            self._copy(*arguments)
        elif name == "RUN":
            assigned = [f"{key}={value}" for key, value in self.environment.items()]
            self._chroot(["env", "-i", *assigned, "sh", "-c", *arguments])
        elif name == "ENTRYPOINT":
            self.entrypoint = arguments
        elif name == "HEALTHCHECK":
            self.health = arguments[1:]

    def _expanded(self, value: str) -> str:
        return value.replace("$PATH", self.environment["PATH"])

    def _upper(self, path: str) -> Path:
        """Where the copy keeps what a path of the image has."""
        return self._stage / "upper" / str(Path(self.directory) / path).lstrip("/")

    def _copy(self, origin: str, _owner: str, *paths: str) -> None:
        *sources, target = paths
        stage = self._stages.get(origin.removeprefix("--from="))
        for source in sources:
            if stage is not None:
                shutil.copytree(stage / "upper" / source.lstrip("/"), self._upper(target), symlinks=True, dirs_exist_ok=True)
                continue
            sent = [path for path in context() if path.match(source) or path.is_relative_to(source)]
            assert sent, f"COPY {source}: nothing of it is sent to the builder"
            for path in sent:
                inside = path.relative_to(source) if path.is_relative_to(source) and path != Path(source) else Path()
                goal = self._upper(target) / (inside if inside.name else path.name if target.endswith("./") else "")
                goal.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / path, goal)

    def _layers(self, stage: Path) -> list[str]:
        """What mounts a stage at its root, over the stage that it begins with, or over this machine's root. The kernel takes no
        two layers of which one is inside the other, so the stage below is mounted too.
        """
        below = self._below.get(stage)
        layers = f"lowerdir={f'{below}/root' if below else '/'},upperdir={stage}/upper,workdir={stage}/work"
        return [*(self._layers(below) if below else ()), f"mount -t overlay overlay -o {layers} {stage}/root"]

    def _chroot(self, command: Sequence[str], *, code: int = 0, lent: Mapping[Path, str] | None = None) -> str:
        root = self._stage / "root"
        mounts = self._layers(self._stage)
        mounts += [f"mount --rbind /{name} {root}/{name}" for name in ("proc", "dev", "sys")]
        for folder, seen in (lent or {}).items():
            mounts += [f"mkdir -p {root}{seen}", f"mount --bind {folder} {root}{seen}"]
        inside = f"cd {shlex.quote(self.directory)} && exec {shlex.join(command)}"
        script = "\n".join([*mounts, f"exec chroot {root} sh -c {shlex.quote(inside)}"])
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-e", "-c", script], capture_output=True, text=True, timeout=1200, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
