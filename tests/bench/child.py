"""A process that does one side's work when it is its turn: one inference runtime in each, one side at work at a time."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Self

Message = dict[str, Any]


class Child:
    """A module of the suite in a process of its own, asked by lines of JSON."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"},
        )  # fmt: skip
        self._name = " ".join([module, *arguments[:1]])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.terminate()
        self._popen.wait(timeout=10)

    def ask(self, **request: Any) -> Message:
        """Its answer."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(json.dumps(request) + "\n")
        self._popen.stdin.flush()
        line = self._popen.stdout.readline()
        assert line, f"{self._name} ended"
        answer: Message = json.loads(line)
        return answer


def serve(begin: Callable[[], Callable[[Message], Message]]) -> None:
    """Begin, and answer until there is nobody to ask; what libraries print meanwhile goes to the error output."""
    out, sys.stdout = sys.stdout, sys.stderr
    answer = begin()
    for line in sys.stdin:
        out.write(json.dumps(answer(json.loads(line))) + "\n")
        out.flush()
