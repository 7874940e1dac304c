"""The wheel works where there is no checkout."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import livedex
from livedex import migrate

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Installed:
    """The package installed from a wheel into a folder of its own."""

    wheel: Path
    site: Path
    elsewhere: Path  # a working directory that has nothing to do with either

    def run(self, *arguments: str) -> str:
        """What a Python prints that sees this installation and the dependencies, but not the checkout. Without `site` (-S)
        no .pth file is read, which is how an editable installation leads to the checkout.
        """
        dependencies = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.site), *dependencies])}
        done = subprocess.run(
            [sys.executable, "-S", *arguments], cwd=self.elsewhere, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Built from this checkout with the backend itself and installed without dependencies: nothing is downloaded."""
    folder = tmp_path_factory.mktemp("wheel")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    _python("-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    _python(
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-index",
        "--no-deps",
        "--target",
        str(site),
        str(wheel),
    )
    return Installed(wheel, site, elsewhere)


def _python(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_has_code_and_data_only(installed: Installed) -> None:
    """All modules, the files of the page, and all files of schema/ and migrations/, inside the package; no tests."""
    names = {name for name in zipfile.ZipFile(installed.wheel).namelist() if ".dist-info/" not in name}
    expected = {f"livedex/{path.relative_to(ROOT / 'workers/livedex')}" for path in (ROOT / "workers/livedex").rglob("*.py")}
    page = ROOT / "workers/livedex/query/page"
    assert {"index.html", "page.css", "main.js"} <= {path.name for path in page.iterdir()}
    expected |= {f"livedex/query/page/{path.name}" for path in page.iterdir()}
    for folder in ("schema", "migrations"):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file()]
        assert files
        expected |= {f"livedex/_{folder}/{path.relative_to(ROOT / folder)}" for path in files}
    assert names == {*expected, "livedex/py.typed"}


def test_nothing_comes_from_the_checkout(installed: Installed) -> None:
    """The code that runs below and its data are those of the wheel."""
    show = "print(livedex.__file__, r.schema_dir(), r.migrations_dir(), *sys.path, sep='\\n')"
    shown = installed.run("-c", f"import sys, livedex, livedex.resources as r; {show}")
    code, schema, migrations, *paths = shown.splitlines()
    package = installed.site / "livedex"
    assert (Path(code), Path(schema), Path(migrations)) == (
        package / "__init__.py",
        package / "_schema",
        package / "_migrations",
    )
    assert str(ROOT / "workers") not in paths
    assert str(ROOT) not in paths


def test_the_page_is_served(installed: Installed) -> None:
    """Its files are found where the wheel puts them."""
    count = "from livedex.query.pages import page_routes; print(len(page_routes()[1]))"
    files = list((ROOT / "workers/livedex/query/page").iterdir())
    assert installed.run("-c", count) == f"{len(files)}\n"


def test_the_command_runs(installed: Installed) -> None:
    """The console script and the module say the version of the wheel."""
    assert installed.run(str(installed.site / "bin" / "livedex"), "--version") == f"{livedex.__version__}\n"
    assert installed.run("-m", "livedex", "--version") == f"{livedex.__version__}\n"


def test_the_migrations_are_printed(installed: Installed) -> None:
    """`livedex migrate --sql` needs no database and gives the same as in the checkout."""
    printed = installed.run(str(installed.site / "bin" / "livedex"), "migrate", "--sql")
    assert printed == migrate.script(migrate.load()) + "\n"
    assert "create table livedex.document (" in printed
