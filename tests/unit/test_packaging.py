"""The shape of the repository: what is a package and what is data, what may import what, and how long a module may be."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import livedex
from livedex import resources

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "workers" / "livedex"
LONGEST_MODULE = 300  # lines
MODULES = sorted(PACKAGE.rglob("*.py"))
CORE = sorted((PACKAGE / "core").glob("*.py"))
# Beyond other packages, core takes no clock, no environment, no files and no threads, although the library has them.
IMPURE = {
    "asyncio",
    "io",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
}


def imports(path: Path) -> Iterator[str]:
    """The modules that a file names in imports, at any depth, relative ones as they are written."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            yield from (f"{origin}.{alias.name}" for alias in node.names) if origin == "livedex" else (origin,)


@pytest.mark.parametrize("folder", ["workers", "schema", "migrations", "tests", "ops"])
def test_no_top_level_folder_is_a_package(folder: str) -> None:
    """A package of that name would shadow the one of the package index; schema/ and migrations/ hold data only."""
    assert (ROOT / folder).is_dir()
    assert not (ROOT / folder / "__init__.py").exists()
    if folder in ("schema", "migrations"):
        assert not list((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize(("found", "name"), [(resources.schema_dir, "schema"), (resources.migrations_dir, "migrations")])
def test_the_data_folders_are_found(found: object, name: str) -> None:
    """In a checkout they are those at its top."""
    assert callable(found)
    assert found() == ROOT / name
    assert list((ROOT / name).rglob("*.sql"))


def test_the_version_is_said_once() -> None:
    """In pyproject.toml; the code asks the installed metadata."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert livedex.__version__ == metadata.version("livedex") == project["version"]


def test_the_command_is_installed() -> None:
    """`livedex` runs the same as `python -m livedex`."""
    (script,) = [script for script in metadata.entry_points(group="console_scripts") if script.name == "livedex"]
    assert script.value == "livedex.cli:main"
    assert callable(script.load())


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_stay_short(path: Path) -> None:
    """One module does one thing; a longer one does two."""
    length = len(path.read_text(encoding="utf-8").splitlines())
    assert length <= LONGEST_MODULE, (
        f"{path.relative_to(ROOT)} has {length} lines, at most {LONGEST_MODULE} are allowed: split it"
    )


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_core_is_pure(path: Path) -> None:
    """It imports only itself, numpy, and of the standard library nothing that reaches outside."""
    for name in imports(path):
        top = name.split(".")[0]
        own = name.startswith("livedex.core")
        assert own or top == "numpy" or (top in sys.stdlib_module_names and top not in IMPURE), f"{path.name} imports {name}"


def test_core_is_not_empty() -> None:
    """The check above looks at the modules that the design names."""
    assert {"change.py", "chunking.py", "fold.py", "plan.py", "progress.py", "backoff.py"} <= {path.name for path in CORE}


@pytest.mark.parametrize(
    ("part", "never"),
    [
        ("core", {"index", "query", "encoders", "cli", "dev"}),
        ("encoders", {"index", "query", "cli", "dev"}),
        ("index", {"query", "cli", "dev"}),
        ("query", {"index", "cli", "dev"}),
        ("dev", {"cli"}),
    ],
)
def test_imports_point_one_way(part: str, never: set[str]) -> None:
    """The parts are layers: cli over index, query and dev, these over encoders, all over core."""
    paths = [path for path in MODULES if path.is_relative_to(PACKAGE / part)]
    assert paths
    for path in paths:
        used = {name.split(".")[1] for name in imports(path) if name.startswith("livedex.")}
        assert not used & never, f"{path.relative_to(PACKAGE)} imports {sorted(used & never)}"
