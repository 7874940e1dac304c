"""Whatever bytes a record has, reading it gives a change or a reason, in bounded time and memory, and never an exception."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from livedex.core.change import Reason

TESTS = Path(__file__).parents[1]
INPUTS = 1_000_000
SOME = 30_000  # in an ordinary run
SLOWEST = 5  # seconds that one small input may take: far above any pause of the machine, far below a hang
ALL_OF_IT = 900  # seconds
# what small bytes alone can be guilty of
REACHED = set(Reason) - {Reason.TOO_LARGE, Reason.UNREADABLE, Reason.EMBEDDING_FAILED, Reason.STORING_FAILED}


@pytest.fixture
def atheris() -> None:
    """The fuzzer is an extension module, for some platforms only."""
    if find_spec("atheris") is None:
        why = "atheris is not installed: its wheels are for Linux on x86_64 and Python 3.11 to 3.13"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)


def test_no_bytes_are_too_strange(atheris: None, tmp_path: Path, seed: int, full: bool) -> None:
    """A million inputs (fewer in an ordinary run), each bred from those that reached new branches, give a change that can be
    stored, or a rejection with a reason and a detail that can be stored.
    """
    count = INPUTS if full else SOME
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    options = [f"-seed={seed or 1}", f"-runs={count}", f"-timeout={SLOWEST}", "-rss_limit_mb=0"]
    done = subprocess.run(
        [sys.executable, "-m", "support.faults.fuzz", str(corpus), *options], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(TESTS), "PYTHONHASHSEED": "0"}, timeout=ALL_OF_IT, errors="replace",
    )  # fmt: skip
    found = [f"{path.name}: {path.read_bytes()!r}" for path in tmp_path.glob("*-*") if path.is_file()]
    assert done.returncode == 0, f"{done.stderr[-3000:]}\n{done.stdout[-3000:]}\n{found}"
    ended = re.search(r"^Done (\d+) runs in (\d+) second", done.stderr, re.MULTILINE)
    assert ended, done.stderr[-2000:]
    assert int(ended[1]) >= count
    counts: Counter[str] = Counter(json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1]))
    print(f"{ended[0]}, {counts}")  # noqa: T201
    assert counts.keys() >= REACHED | {"change"}, "the inputs must come to every reason"
    assert 0.02 < counts["change"] / counts.total() < 0.9, "the inputs must be near the border of what is valid"
