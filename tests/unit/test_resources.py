"""What the machine gives."""

import os
from pathlib import Path

import pytest

from livedex.resources import processors

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
