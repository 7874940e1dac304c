"""The class path of the broker: remembered, and honest about what is missing."""

import os
from pathlib import Path

import pytest

from livedex import resources
from livedex.dev import jars
from livedex.errors import ConfigError, UnavailableError


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two jars of an earlier resolution, remembered."""
    paths = [tmp_path / name for name in ("a.jar", "b.jar")]
    for path in paths:
        path.touch()
    jars._remember(tmp_path, paths)
    return tmp_path


def test_remembered_jars_need_no_resolution(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class path that is complete on disk is given without asking anybody."""
    monkeypatch.setattr(jars, "_resolve", lambda _: pytest.fail("resolved again"))
    assert jars.class_path(cache) == os.pathsep.join([f"{cache}/a.jar", f"{cache}/b.jar"])


def test_lost_jar_is_resolved_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class path with a hole is not used."""
    (cache / "b.jar").unlink()
    monkeypatch.setattr(jars, "_resolve", lambda _: [cache / "a.jar"])
    assert jars.class_path(cache) == f"{cache}/a.jar"


def test_repository_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without jars and without a connection the error says what to do, and nothing is remembered."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")  # a port where nobody listens
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UnavailableError, match=r"are not in .* run `make setup` once with a connection"):
        jars.class_path(tmp_path)
    assert not jars._remembered(tmp_path)


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    """A cache folder in an impossible place is named together with the remedy."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write the cache .*file/livedex .*set XDG_CACHE_HOME"):
        jars.class_path(tmp_path / "file" / "livedex")


def test_extra_that_is_not_installed() -> None:
    """A package of the extra that is missing is answered with the command that installs it."""
    with pytest.raises(ConfigError, match=r'needs no_such_package, .*pip install "livedex\[demo\]"'):
        jars.package_folder("no_such_package")


def test_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG_CACHE_HOME moves the cache; without it, it is below the home folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert resources.cache_dir() == Path("/somewhere/livedex")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/people/ada")
    assert resources.cache_dir() == Path("/people/ada/.cache/livedex")
