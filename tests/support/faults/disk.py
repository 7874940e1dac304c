"""A disk that is easily full."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BLOCK = 2**16  # bytes


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of this size at `folder`; skips the test where this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def fill(path: Path) -> None:
    """Write a file until there is no room, not for a byte."""
    with path.open("wb", buffering=0) as file:
        for size in (BLOCK, 1):
            try:
                while file.write(bytes(size)) == size:
                    os.fsync(file.fileno())
            except OSError as error:
                assert error.errno == errno.ENOSPC, error  # noqa: PT017 - it is what is wanted
