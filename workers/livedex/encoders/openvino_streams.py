"""Many batches at a time through an OpenVINO graph, each on a core of its own.

One batch on all cores waits at every step for its slowest thread, which costs much beside other work: with half of one of two
cores taken, batches one after another took 1.4 to 1.7 times as long as alone, and those in streams hardly longer.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livedex.encoders.port import Vectors
from livedex.errors import ConfigError
from livedex.resources import memory_left, processors

NICENESS = 10  # of the streams: a tenth of the share that a busy thread of normal priority gets
Inputs = dict[str, NDArray[np.int64]]  # arrays of shape (texts, width) by the name that the graph has for them


def precisions() -> tuple[str, ...]:
    """What this processor can do that may give torch's numbers, fastest first."""
    import openvino

    fast = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("bf16", "f32") if fast else ("f32",)


def compiled(graph: Path, precision: str, *, streams: int | None = None) -> Any:
    """A graph, ready to run on the processors that this process may use: one batch after another, or in so many streams."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": processors(),
        "CACHE_DIR": str(graph.parent / "compiled"),
    }
    wanted = {"PERFORMANCE_HINT": "LATENCY"} if streams is None else {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": streams}
    return openvino.Core().compile_model(graph, "CPU", settings | wanted)


class Streams:
    """A graph that takes many batches at a time, one on each core; any number of threads may use it. Its own threads stand back
    for others of the machine, or of the container: searches are waited for, and a backfill takes a little longer.
    """

    def __init__(self, graph: Path, precision: str) -> None:
        """ConfigError where the model would not fit into memory again."""
        _need_memory(2 * graph.with_suffix(".bin").stat().st_size)
        # in a thread of its own, whose priority the threads of the streams inherit
        with ThreadPoolExecutor(1, initializer=_stand_back) as opener:
            self._compiled = opener.submit(compiled, graph, precision, streams=processors()).result()
        self._requests = processors() + 1  # so that no stream waits for its next batch to be made ready

    def outputs(self, batches: Iterable[Inputs]) -> Generator[Vectors, None, None]:
        """The first output for each batch, float32, in their order."""
        free = [self._compiled.create_infer_request() for _ in range(self._requests)]
        running: deque[Any] = deque()
        try:
            for inputs in batches:
                if not free:
                    yield _output(running[0])
                    free.append(running.popleft())
                running.append(free.pop())
                running[-1].start_async(inputs)
            while running:
                yield _output(running[0])
                running.popleft()
        finally:  # who stops early must not leave the model at work
            for request in running:
                with suppress(RuntimeError):  # the first error is told
                    request.wait()


def _need_memory(wanted: int) -> None:
    """What the system kills for taking too much would take it again, and be killed again."""
    left = memory_left()
    if left < wanted:
        raise ConfigError(f"{left / 2**20:.0f} MiB of memory are left, {wanted / 2**20:.0f} MiB were expected")


def _stand_back() -> None:
    """Give this thread, and those that it begins, less of a busy processor."""
    if sys.platform == "linux":  # elsewhere priorities are those of processes
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _output(request: Any) -> Vectors:
    """Once it is there; a copy, since the next run writes to the same place."""
    request.wait()
    return np.array(request.get_output_tensor(0).data, np.float32)
