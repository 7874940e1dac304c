"""Workers by fork, for scenarios that start hundreds: importing all of livedex takes two seconds of a core, forking none.

The nursery is a process of its own, so that nothing of the test run is inherited. It forks what it is told on stdin, one JSON
object a line, and says on stdout who was born and who ended how.
"""

import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

TESTS = Path(__file__).parents[2]
LOOK = 0.02  # seconds between two looks at who ended


class Forked(subprocess.Popen[bytes]):
    """A child of the nursery, with what the harness uses of a Popen."""

    def __init__(self, pid: int) -> None:  # it runs already: nothing is to be started
        self.pid = pid
        self.args = ["forked", str(pid)]
        self.returncode: Any = None
        self._ended = threading.Event()

    def __del__(self) -> None:
        """Nothing: the nursery reaps."""

    def end(self, code: int) -> None:
        """The nursery says so."""
        self.returncode = code
        self._ended.set()

    def poll(self) -> int | None:
        """See Popen."""
        return self.returncode if self._ended.is_set() else None

    def wait(self, timeout: float | None = None) -> int:
        """See Popen."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("forked", timeout or 0)
        return int(self.returncode)

    def send_signal(self, sig: int) -> None:
        """See Popen."""
        if not self._ended.is_set():
            os.kill(self.pid, sig)

    def kill(self) -> None:
        """See Popen."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The test run's side."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.faults.nursery"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])},
        )  # fmt: skip
        self._born: queue.SimpleQueue[Forked] = queue.SimpleQueue()
        self._children: dict[int, Forked] = {}
        self._thread = threading.Thread(target=self._listen, name="nursery", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # it kills its children and ends
        self._process.wait(timeout=20)
        self._thread.join(timeout=5)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def fork(self, arguments: Sequence[str], environment: Mapping[str, str], output: Path) -> Forked:
        """A worker as `python -m support.faults.sabotage` with these arguments."""
        order = {"arguments": list(arguments), "environment": dict(environment), "output": str(output)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return self._born.get(timeout=300)  # the first one waits for the imports, which take a minute on a busy machine

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "born" in said:
                child = self._children[said["born"]] = Forked(said["born"])
                self._born.put(child)
            else:
                self._children.pop(said["ended"]).end(said["code"])


def main() -> None:
    """The nursery's side: import what a worker needs, then fork. One thread, because a fork copies no other."""
    from livedex.cli import app as _cli
    from livedex.index import app as _index
    from support.faults import encoder, moments, removals, sabotage

    del _cli, _index, encoder, moments, removals
    living: set[int] = set()
    waiting = b""
    while True:
        _reap(living)
        if not select.select([0], [], [], LOOK)[0]:
            continue
        data = os.read(0, 65536)
        if not data:
            break
        *orders, waiting = (waiting + data).split(b"\n")
        for order in orders:
            pid = os.fork()
            if pid == 0:
                _become(json.loads(order), sabotage.main)
            living.add(pid)
            _say(born=pid)
    for pid in living:
        os.kill(pid, signal.SIGKILL)


def _become(order: dict[str, Any], run: Any) -> None:
    """In the child: take over the order's output and environment, and never return to the nursery's loop."""
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for given, taken in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(given, taken)
        os.environ.clear()
        os.environ.update(order["environment"])
        sys.argv = ["sabotage", *order["arguments"]]
        run()
    except SystemExit as end:
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:  # noqa: BLE001 - as the interpreter would say it
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)


def _reap(living: set[int]) -> None:
    while living:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        living.discard(pid)
        _say(ended=pid, code=os.waitstatus_to_exitcode(status))


def _say(**what: int) -> None:
    os.write(1, (json.dumps(what) + "\n").encode())


if __name__ == "__main__":
    main()
