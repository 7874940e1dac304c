"""A process in the background: identity, start, stop, and what is said when it ends."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from livedex.dev.process import Daemon, Identity
from livedex.errors import TimedOutError, UnavailableError
from support.waiting import until

STAT = "{pid} (od) d (name)) {state} 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 4711 0 0"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that is gone after the test."""
    daemon = Daemon(name="sleeper", pid_file=tmp_path / "run" / "sleeper.pid", log=tmp_path / "logs" / "sleeper.log")
    try:
        yield daemon
    finally:
        daemon.stop(signal.SIGKILL, 5)


def test_identity_survives_its_file() -> None:
    """What is written to a pid file is read back the same."""
    identity = Identity(pid=12, started=4711)
    assert Identity.parse(str(identity)) == identity


@pytest.mark.parametrize("text", ["", "12", "12 x", "1 2 3"])
def test_identity_of_a_damaged_file(text: str) -> None:
    """A pid file with anything else in it names no process."""
    assert Identity.parse(text) is None


@pytest.mark.parametrize(("state", "threads", "alive"), [("S", 1, True), ("Z", 1, False), ("X", 0, False), ("Z", 3, True)])
def test_zombies_are_gone_once_their_last_thread_is(state: str, threads: int, alive: bool) -> None:
    """A zombie with live threads still holds its ports and counts as running; without, it does not."""
    found = Identity.parse_stat(12, STAT.format(pid=12, state=state, threads=threads))
    assert found == (Identity(pid=12, started=4711) if alive else None)


def test_spawned_process_is_detached(daemon: Daemon) -> None:
    """It has a session of its own, no file of the caller, no environment of the caller, and is not our child."""
    kept, inherited = os.pipe()
    os.set_inheritable(inherited, True)
    try:
        daemon.spawn(["/bin/sleep", "60"])
    finally:
        os.close(kept)
        os.close(inherited)
    assert daemon.pid is not None
    process = psutil.Process(daemon.pid)
    assert os.getsid(daemon.pid) != os.getsid(0)
    until(lambda: _files(daemon.pid) == {Path(os.devnull), daemon.log}, what="it to have no file but these")
    assert "HOME" not in process.environ()
    assert process.ppid() != os.getpid()


def _files(pid: int | None) -> set[Path]:
    """What a process has open; none while it is on its way into its program, and closes what it inherited."""
    try:
        return {link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir()}
    except FileNotFoundError:
        return set()


def test_recycled_pid_is_not_ours(daemon: Daemon) -> None:
    """A pid that another process has by now is neither "running" nor signalled."""
    with subprocess.Popen(["/bin/sleep", "60"], start_new_session=True) as innocent:
        try:
            now = Identity.of(innocent.pid)
            assert now is not None
            daemon.pid_file.parent.mkdir()
            daemon.pid_file.write_text(str(Identity(pid=now.pid, started=now.started - 1)))
            assert daemon.pid is None
            daemon.stop(signal.SIGKILL, 1)
            assert innocent.poll() is None
        finally:
            innocent.kill()


def test_stop_kills_what_does_not_listen(daemon: Daemon) -> None:
    """A process that ignores the polite signal is killed after the time-out."""
    daemon.spawn(["/bin/sh", "-c", 'trap "" TERM; echo trapped; while :; do sleep 0.1; done'])
    daemon.wait_until(lambda: "trapped" in daemon.log.read_text(), 10)
    pid = daemon.pid
    daemon.stop(signal.SIGTERM, 0.2)
    assert pid is not None
    assert Identity.of(pid) is None


def test_stop_reaches_what_the_shell_started(daemon: Daemon) -> None:
    """A shell and the program that it waits for end together."""
    daemon.spawn(["/bin/sh", "-c", "sleep 61 && exec sleep 62"])
    assert daemon.pid is not None
    shell = psutil.Process(daemon.pid)
    daemon.wait_until(lambda: bool(shell.children()), 10)
    (child,) = shell.children()
    daemon.stop(signal.SIGTERM, 5)
    psutil.wait_procs([child], timeout=5)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_end_while_starting_shows_the_log(daemon: Daemon) -> None:
    """When the process ends before it answers, the error has its last words and the log's place."""
    daemon.spawn(["/bin/sh", "-c", "echo no space left >&2; exit 1"])
    with pytest.raises(UnavailableError, match=rf"ended while starting; the end of {daemon.log}:\nno space left"):
        daemon.wait_until(lambda: False, 10)


def test_silence_is_timed_out(daemon: Daemon) -> None:
    """A process that runs but never answers is a time-out, not an endless wait."""
    daemon.spawn(["/bin/sleep", "60"])
    with pytest.raises(TimedOutError, match=r"did not answer within 0\.1 s"):
        daemon.wait_until(lambda: False, 0.1)


def test_log_of_the_run_before_is_kept(daemon: Daemon) -> None:
    """A restart does not wipe what the crashed run said."""
    for word in ("first", "second"):
        daemon.spawn(["/bin/echo", word])
        until(lambda expected=word: daemon.log.read_text() == f"{expected}\n", what=f"{word} to be logged")  # type: ignore[misc]
    assert daemon.log.with_name("sleeper.log.1").read_text() == "first\n"
