"""The broker's jars: resolved once, kept in the user's cache, shared by every stack.

`class_path()` asks no repository once the jars are there. `python -m livedex.dev.jars` is `make setup`'s call.
"""

import fcntl
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from livedex.errors import ConfigError, LivedexError, UnavailableError
from livedex.resources import cache_dir

KAFKA_VERSION = "4.4.0"
COORDINATES = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"


def package_folder(name: str) -> Path:
    """Find where a package of the extra `demo` is, without importing it; ConfigError when it is not installed."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ConfigError(f'the development stack needs {name}, which is not installed: pip install "livedex[demo]"')
    return Path(spec.origin).parent


def class_path(cache: Path | None = None) -> str:
    """Java's class path of the broker, resolved on first use.

    Raises ConfigError without the extra `demo` or a writable cache, UnavailableError when the jars are absent and
    the Maven repository does not answer.
    """
    cache = cache or cache_dir()
    jars = _remembered(cache)
    if not jars:
        with _locked(cache):
            jars = _remembered(cache) or _resolve(cache)
    return os.pathsep.join(map(str, jars))


def _list_file(cache: Path) -> Path:
    return cache / f"kafka-{KAFKA_VERSION}.classpath"


def _remembered(cache: Path) -> list[Path]:
    """Read the jars of an earlier resolution, or nothing when one of them is gone."""
    try:
        jars = [cache / line for line in _list_file(cache).read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []
    return jars if all(jar.is_file() for jar in jars) else []


def _resolve(cache: Path) -> list[Path]:
    package_folder("jgo")
    from jgo.env import EnvironmentBuilder
    from jgo.maven import MavenContext

    try:
        shutil.rmtree(cache / "envs", ignore_errors=True)  # jgo does not notice when one lost a jar
        builder = EnvironmentBuilder(context=MavenContext(repo_cache=cache / "m2"), cache_dir=cache / "envs")
        environment = builder.from_endpoint(COORDINATES)
    except (RuntimeError, OSError) as exc:  # what jgo lets through: its own, and those of requests
        raise UnavailableError(
            "maven",
            f"the jars of kafka {KAFKA_VERSION} are not in {cache} and could not be fetched from the Maven "
            f"repository ({exc}): run `make setup` once with a connection",
        ) from exc
    jars = [*environment.class_path_jars, *environment.module_path_jars]
    _remember(cache, jars)
    return jars


def _remember(cache: Path, jars: list[Path]) -> None:
    target = _list_file(cache)
    draft = target.with_suffix(".new")
    draft.write_text("".join(f"{jar.relative_to(cache)}\n" for jar in jars), encoding="utf-8")
    draft.replace(target)


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """One process resolves at a time; jgo does not expect company in its cache."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / "jars.lock").open("w")
    except OSError as exc:
        raise ConfigError(f"cannot write the cache {cache} ({exc.strerror}): set XDG_CACHE_HOME to a folder") from exc
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Resolve the jars and say where they are, in one line."""
    try:
        jars = class_path().split(os.pathsep)
    except LivedexError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    typer.echo(f"kafka {KAFKA_VERSION}: {len(jars)} jars in {cache_dir()}")


if __name__ == "__main__":
    main()
