"""Holds dashboards against the types of Grafana's package @grafana/schema, with TypeScript's compiler."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from livedex.resources import cache_dir
from support.grafana.files import Json
from support.node import Node

HERE = Path(__file__).parent
HEAD = "import type { Checked } from './grafana.js';\nexport const made: Checked = "
FILES = ("package.json", "package-lock.json")
VERSION = json.loads((HERE / "package.json").read_text())["dependencies"]["@grafana/schema"]


class Types:
    """The compiler and the types, fetched once into the user's cache; work is done in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._node = Node()
        modules = cache_dir() / f"grafana-schema@{VERSION}"
        self._node.fetch(modules, "ci", prepare=_prepare)
        self._folder = folder
        (folder / "node_modules").symlink_to(modules / "node_modules")
        for name in ("grafana.ts", "tsconfig.json"):
            shutil.copy(HERE / name, folder)

    def errors(self, dashboards: Mapping[str, Json]) -> list[str]:
        """What the compiler finds in dashboards, by name; the name of the file is in each line."""
        for name, dashboard in dashboards.items():
            text = f"{HEAD}{json.dumps(dashboard, indent=1)};\n"
            (self._folder / f"{name}.ts").write_text(text, encoding="utf-8")
        done = self._node.run(["node_modules/typescript/bin/tsc", "--project", "."], self._folder)
        assert not done.stderr, done.stderr
        found = done.stdout.splitlines()
        assert bool(found) == bool(done.returncode), f"the compiler ended with {done.returncode}: {done.stdout}"
        return found


def _prepare(draft: Path) -> None:
    for name in FILES:
        shutil.copy(HERE / name, draft)
