"""A server in the background: started detached, found again by its pid file, never mistaken for another.

A pid file holds the pid and the kernel's start time of the process, so a pid that was recycled is seen as "not
running" and is never signalled. Linux only: both come from /proc.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from livedex.errors import TimedOutError, UnavailableError

POLL_SECONDS = 0.05
TAIL_LINES = 20
# Nothing of the caller's environment reaches a server: no PG*, no JAVA_*, no secrets.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", "TZ": "UTC"}
# The shell puts the server in the background and ends, so that init reaps the server and not the caller.
LAUNCH = 'log=$1; shift; "$@" </dev/null >"$log" 2>&1 & echo $!'


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One process among all that ever had its pid."""

    pid: int
    started: int  # clock ticks since boot, from /proc/PID/stat

    def __str__(self) -> str:
        return f"{self.pid} {self.started}"

    @classmethod
    def parse(cls, text: str) -> "Identity | None":
        """Read `str(identity)` back; None when the text is something else."""
        try:
            pid, started = map(int, text.split())
        except ValueError:
            return None
        return cls(pid=pid, started=started)

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """Look up the process that has this pid now; None when there is none or only a zombie is left."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        return cls.parse_stat(pid, stat)

    @classmethod
    def parse_stat(cls, pid: int, stat: str) -> "Identity | None":
        """Read a line of /proc/PID/stat; None when only a zombie is left."""
        state, *fields = stat.rpartition(")")[2].split()  # the name before may hold blanks and brackets
        threads, started = int(fields[16]), int(fields[18])
        # A killed process whose first thread is a zombie still holds its ports until the last thread has ended.
        return None if state in "ZX" and threads <= 1 else cls(pid=pid, started=started)


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A server process of the stack, known by its pid file."""

    name: str  # kafka, postgres: for messages
    pid_file: Path
    log: Path

    @property
    def pid(self) -> int | None:
        """The pid while the process runs, else None."""
        try:
            written = Identity.parse(self.pid_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return written.pid if written and Identity.of(written.pid) == written else None

    def spawn(self, argv: Sequence[str]) -> None:
        """Start `argv` in a session of its own, with its output in the log; the log of the last run is kept as .1."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_name(f"{self.log.name}.1"))
        launched = subprocess.run(
            ["/bin/sh", "-c", LAUNCH, "sh", str(self.log), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env=ENVIRONMENT,
            check=True,
        )
        self.pid_file.write_text(str(Identity.of(int(launched.stdout)) or ""), encoding="utf-8")

    def wait_until(self, answers: Callable[[], bool], timeout: float) -> None:
        """Return once `answers()`; UnavailableError when the process ends first, TimedOutError after `timeout` s."""
        deadline = time.monotonic() + timeout
        while not answers():
            if self.pid is None:
                raise UnavailableError(self.name, f"{self.name} ended while starting; {self._tail()}")
            if time.monotonic() > deadline:
                raise TimedOutError(f"{self.name} did not answer within {timeout:g} s; {self._tail()}")
            time.sleep(POLL_SECONDS)

    def stop(self, number: signal.Signals, timeout: float) -> None:
        """Ask the process to end, and kill it when it has not after `timeout` seconds. Idempotent."""
        if not self._end(number, timeout):
            self.kill()
        self.pid_file.unlink(missing_ok=True)

    def kill(self, timeout: float = 10.0) -> None:
        """`kill -9`, as a crash would: returns when the process is gone. The pid file stays."""
        if not self._end(signal.SIGKILL, timeout):
            raise TimedOutError(f"{self.name} (pid {self.pid}) is still there {timeout:g} s after SIGKILL")

    def _end(self, number: signal.Signals, timeout: float) -> bool:
        """Signal the process group, which is the process and what its shell started; True once it is gone."""
        deadline = time.monotonic() + timeout
        pid = self.pid
        if pid is not None:
            try:
                os.killpg(os.getpgid(pid), number)
            except ProcessLookupError:
                return True
        while self.pid is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _tail(self) -> str:
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        return "\n".join([f"the end of {self.log}:", *lines[-TAIL_LINES:]])
