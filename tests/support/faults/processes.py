"""Starts workers through an entry of the harness's own."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support.workers import Process, Workers, free_port


@dataclass(slots=True)
class Processes(Workers):
    """Workers that may be started by another command than `livedex`."""

    def start_as(self, command: Sequence[str], config: Path, **environment: str) -> Process:
        """An index worker as this command; does not wait for it."""
        port = free_port()
        output = self.folder / f"worker-{len(self._processes)}.log"
        with output.open("wb") as stream:
            popen = subprocess.Popen(
                command, env=self.environment(config, LIVEDEX_METRICS_PORT=str(port), **environment), stdin=subprocess.DEVNULL,
                stdout=stream, stderr=stream,
            )  # fmt: skip
        process = Process(popen, output, f"http://127.0.0.1:{port}")
        self._processes.append(process)
        return process
