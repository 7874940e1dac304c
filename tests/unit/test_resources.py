"""What the machine gives."""

import math
import os
from pathlib import Path

import pytest

from livedex.resources import memory_left, processors

OWN = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("max 100000\n", OWN),
        ("100000 100000\n", 1),
        ("150000 100000\n", min(OWN, 2)),
        ("1000 100000\n", 1),
        (f"{(OWN + 1) * 100_000} 100000\n", OWN),
        ("", OWN),
        (None, OWN),
    ],
)
def test_a_quota_limits_the_processors(tmp_path: Path, written: str | None, expected: int) -> None:
    """A container's threads are no more than it may run at a time; without a quota, or on other systems, all may be used."""
    quota = tmp_path / "cpu.max"
    if written is not None:
        quota.write_text(written)
    assert processors(quota) == expected


SYSTEM = "MemTotal:        4000 kB\nMemAvailable:    1000 kB\nHugePages_Total:       0\n"


@pytest.mark.parametrize(
    ("limit", "used", "stat", "system", "expected"),
    [
        ("900000\n", "800000\n", "anon 700000\ninactive_file 50000\n", SYSTEM, 150_000),
        ("900000\n", "800000\n", None, SYSTEM, 100_000),
        ("9000000\n", "800000\n", "", SYSTEM, 1_024_000),
        ("max\n", "800000\n", "", SYSTEM, 1_024_000),
        (None, None, None, SYSTEM, 1_024_000),
        ("900000\n", "800000\n", "", None, 100_000),
        (None, None, None, None, math.inf),
    ],
)
@pytest.mark.parametrize("where", ["", "system.slice", "system.slice/a.service", "system.slice/another.service"])
def test_memory_is_what_the_groups_and_the_system_leave(
    tmp_path: Path, where: str, limit: str | None, used: str | None, stat: str | None, system: str | None, expected: float
) -> None:
    """The least of all; pages of files that nobody used lately are left too. Other groups do not count."""
    group, own = tmp_path / "groups" / where, tmp_path / "proc" / "self"
    told = {
        group / "memory.max": limit,
        group / "memory.current": used,
        group / "memory.stat": stat,
        tmp_path / "proc" / "meminfo": system,
        own / "cgroup": "4:memory:/old\n0::/system.slice/a.service\n",
    }
    for path, content in told.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_text(content)
    others = 1_024_000 if system else math.inf
    assert memory_left(tmp_path / "groups", tmp_path / "proc") == (others if "another" in where else expected)


def test_memory_is_not_limited_where_nothing_says_so(tmp_path: Path) -> None:
    """On other systems."""
    assert memory_left(tmp_path, tmp_path) == math.inf
