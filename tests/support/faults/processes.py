"""Starts workers through the harness's own entry, and writes settings with several topics."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.faults.nursery import TESTS, Nursery
from support.workers import Process, Workers, free_port


@dataclass(slots=True)
class Processes(Workers):
    """Workers that are started by `support.faults.sabotage`; by fork where there is a nursery."""

    nursery: Nursery | None = None

    def sabotaged(self, options: Sequence[str], config: Path, **environment: str) -> Process:
        """An index worker with these options of `sabotage`; does not wait for it."""
        port = free_port()
        output = self.folder / f"worker-{len(self._processes)}.log"
        path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
        told = self.environment(config, LIVEDEX_METRICS_PORT=str(port), PYTHONPATH=path, **environment)
        arguments = [*options, "index"]
        popen: subprocess.Popen[bytes]
        if self.nursery is not None:
            popen = self.nursery.fork(arguments, told, output)
        else:
            with output.open("wb") as stream:
                popen = subprocess.Popen(
                    [sys.executable, "-m", "support.faults.sabotage", *arguments], env=told, stdin=subprocess.DEVNULL,
                    stdout=stream, stderr=stream,
                )  # fmt: skip
        process = Process(popen, output, f"http://127.0.0.1:{port}")
        self._processes.append(process)
        return process

    def logs(self) -> list[str]:
        """What each worker wrote so far, those that have ended too."""
        return [process.log() for process in self._processes]

    def config_of(self, topics: Sequence[str], *, client: Mapping[str, Any], **collection: str) -> Path:
        """A settings file: collection `default` fed by these topics."""
        path = self.config(topics[0], client=client, **collection)
        more = [f'[sources.{json.dumps(topic)}]\ncollection = "default"\n' for topic in topics[1:]]
        path.write_text(path.read_text() + "".join(more))
        return path
