"""What happened in a scenario, one JSON object a line: to be read when a run failed, beside the workers' own logs."""

import json
import threading
import time
from pathlib import Path
from typing import Any


class OpLog:
    """Appends operations to a file; any thread may."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._lock = threading.Lock()

    def note(self, actor: str, op: str, **details: Any) -> None:
        """Write one operation down with the time, in seconds since 1970."""
        line = json.dumps({"at": round(time.time(), 4), "actor": actor, "op": op, **details}, default=str)
        with self._lock:
            if not self._file.closed:
                self._file.write(line + "\n")

    def entries(self, op: str | None = None) -> list[dict[str, Any]]:
        """What was written so far; only one kind of operation when `op` names it."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [entry for entry in map(json.loads, lines) if op is None or entry["op"] == op]

    def close(self) -> None:
        """Write no more."""
        with self._lock:
            self._file.close()
