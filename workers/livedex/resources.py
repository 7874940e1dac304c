"""What the machine gives: the package's data, in the wheel beside the code or at the top level of a checkout, the user's cache,
processors, memory.
"""

import math
import os
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath

from livedex.errors import ConfigError


def schema_dir() -> Path:
    """The folder of schema/: SQL, JSON Schema and OpenAPI that other languages read too."""
    return _find("schema")


def migrations_dir() -> Path:
    """The folder of migrations/: `NNNN_[pre|post]_name.sql`."""
    return _find("migrations")


def cache_dir() -> Path:
    """What is made or fetched once and may be again: `livedex` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "livedex"


@cache
def processors(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """How many this process may use at a time, as it began: those that it may run on, and in a container no more than the quota
    of its control group (version 2), rounded up, where every thread above it makes all of them wait.
    """
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = (float(number) for number in quota.read_text().split())
    except (OSError, ValueError):  # no container, or one without a limit: max
        return own
    return max(1, min(own, math.ceil(allowed / period)))


def memory_left(groups: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> float:
    """Bytes that this process may still take: what the system has available, and no more than what the limits of its control
    group (version 2) and of those around it leave. Infinite where nothing says it.
    """
    return min([1024 * _numbers(proc / "meminfo").get("MemAvailable:", math.inf), *map(_left, _own_groups(groups, proc))])


def _own_groups(groups: Path, proc: Path) -> list[Path]:
    """The control group of this process and those around it."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    paths = [PurePosixPath(line.removeprefix("0::/")) for line in lines if line.startswith("0::/")]
    return [groups / each for path in paths for each in (path, *path.parents)]


def _left(group: Path) -> float:
    """Bytes up to the limit of a control group; infinite where it has none."""
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # the outermost has none, others may say: max
        return math.inf
    cached = _numbers(group / "memory.stat").get("inactive_file", 0)  # given back before anybody is killed
    return limit - used + cached


def _numbers(table: Path) -> dict[str, int]:
    """The numbers of a file with a name and a number on each line, by name; none where it cannot be read."""
    try:
        rows = [line.split() for line in table.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _find(name: str) -> Path:
    inside = Path(str(resources.files("livedex"))) / f"_{name}"
    beside = Path(__file__).parents[2] / name
    for place in (inside, beside):
        if place.is_dir():
            return place
    raise ConfigError(f"the folder {name} is neither at {inside} nor at {beside}: install livedex again")
