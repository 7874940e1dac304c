"""The demo as a stranger runs it, small and with the hash encoder; `make demo` is the whole one."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from support.waiting import until


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the demo makes its own folder. Whatever a failing test leaves running is ended."""
    yield tmp_path
    for process in _left_behind(tmp_path):
        process.kill()


def _environment(folder: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder), "LIVEDEX_EMBEDDER": "hash", "PYTHONUNBUFFERED": "1", **more}


@contextmanager
def _demo(folder: Path, *arguments: str, **more: str) -> Iterator["subprocess.Popen[str]"]:
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "livedex.dev.demo", "--documents", "12", *arguments], env=_environment(folder, **more),
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _output(folder: Path) -> str:
    return (folder / "output").read_text()


def _left_behind(folder: Path) -> list[psutil.Process]:
    """Processes that the demo started: servers name its folder in their arguments, workers inherit its TMPDIR."""

    def belongs(process: psutil.Process) -> bool:
        try:
            named = any(str(folder) in argument for argument in process.cmdline())
            return (named or process.environ().get("TMPDIR") == str(folder)) and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    return [process for process in psutil.process_iter() if belongs(process)]


def test_demo_shows_the_main_job_and_ends_by_itself(folder: Path) -> None:
    """Publish, ask, edit, delete, break and measure: all of it holds, the exit status is 0, and nothing stays."""
    with _demo(folder) as process:
        assert process.wait(timeout=180) == 0, _output(folder)
    output = _output(folder)
    assert re.search(r"searchable \d+ ms after Kafka acknowledged it; embedded [123] of \d+ chunks", output), output
    assert re.search(r"events +16 applied, 1 dead_letter", output), output  # 12, an edit, a delete, two neighbours; one broken
    assert re.search(r"reason invalid-json", output), output
    assert not _left_behind(folder)
    assert not list(folder.glob("livedex-demo-*"))


@pytest.mark.accept
def test_interrupted_demo_leaves_nothing_behind(folder: Path) -> None:
    """SIGTERM while the workers are there: exit status 1, no process, no folder. Ctrl-C takes the same way."""
    with _demo(folder) as process:
        until(lambda: "$ livedex serve" in _output(folder), timeout=120, what="the workers")
        assert _left_behind(folder)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 1, _output(folder)
    assert "interrupted" in _output(folder)
    until(lambda: not _left_behind(folder), what="the last process to be gone")
    assert not list(folder.glob("livedex-demo-*"))


@pytest.mark.accept
def test_failing_demo_says_why_and_leaves_nothing_behind(folder: Path) -> None:
    """A step that fails ends the demo with its reason and exit status 1, without a traceback."""
    with _demo(folder, LIVEDEX_EMBEDDER="http") as process:
        assert process.wait(timeout=120) == 1, _output(folder)
    output = _output(folder)
    assert "the embedder is http, but no server is set: set LIVEDEX_EMBEDDER_URL" in output
    assert output.rstrip().endswith("the demo failed: `livedex apply` ended with 1")
    assert "Traceback" not in output
    assert not _left_behind(folder)


@pytest.mark.accept
def test_kept_demo_can_be_used_and_stopped_as_it_says(folder: Path) -> None:
    """With --keep everything goes on running, and the lines that it prints work."""
    with _demo(folder, "--keep") as process:
        assert process.wait(timeout=180) == 0, _output(folder)
    lines = [line.strip() for line in _output(folder).splitlines()]
    (pages,) = [line.split()[1] for line in lines if line.startswith("pages ")]
    assert httpx.get(pages, trust_env=False, timeout=10).is_success
    (setting,) = [line for line in lines if line.startswith("eval ")]
    (asking,) = [line for line in lines if "livedex search" in line]
    answer = _shell(f"unset LIVEDEX_EMBEDDER; {setting}; {asking} --mode text", folder)
    assert "python/" in answer.stdout, answer.stderr
    (stop,) = [line for line in lines if line.startswith("kill ")]
    assert _shell(stop, folder).returncode == 0
    until(lambda: not _left_behind(folder), timeout=15, what="the end of every process")


def _shell(line: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", line], env=_environment(folder), capture_output=True, text=True, timeout=60, check=False
    )
