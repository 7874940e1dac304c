"""Many batches at a time give what they give one after another, in their order."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from livedex.config import DEFAULT_MODEL
from livedex.encoders import openvino_streams
from livedex.encoders.converted import Converted, converted
from livedex.encoders.models import digest_of, find_model
from livedex.encoders.openvino_streams import NICENESS, Inputs, Streams, compiled, precisions
from livedex.encoders.port import normalised
from livedex.encoders.probe import TOLERANCE, agreement
from livedex.errors import ConfigError
from livedex.resources import processors

pytestmark = pytest.mark.model
USUAL = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
SHAPES = [
    (1, 16),
    (3, 96),
    (7, 32),
    (1, 250),
    (2, 16),
    (5, 64),
    (1, 16),
    (4, 128),
    (6, 48),
]  # more than are worked on at a time


@pytest.fixture(scope="module")
def model() -> Converted:
    """The default model, converted."""
    try:
        folder = find_model(DEFAULT_MODEL)
        return converted(folder, digest_of(folder))
    except ConfigError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def streams(model: Converted) -> Streams:
    """Its graph in streams."""
    return Streams(model.graph, precisions()[0])


def _batches(seed: int) -> Iterator[Inputs]:
    source = np.random.default_rng(seed)
    for shape in SHAPES:
        yield {"input_ids": source.integers(1000, 20_000, shape), "attention_mask": np.ones(shape, np.int64)}


def test_each_batch_has_its_own_output(model: Converted, streams: Streams) -> None:
    """Of one row for each text, whatever shapes the batches before and behind it have."""
    alone = compiled(model.graph, precisions()[0])
    outputs = list(streams.outputs(_batches(seed=4)))  # nobody else keeps the arrays
    batches = list(_batches(seed=4))
    assert [len(output) for output in outputs] == [rows for rows, _ in SHAPES]
    for batch, output in zip(batches, outputs, strict=True):
        assert agreement(normalised(output), normalised(np.array(alone(batch)[0]))) >= TOLERANCE


def test_streams_stand_back_for_others(model: Converted, streams: Streams) -> None:
    """Their threads have a low priority, and nobody else's: an edit, a search and the heartbeat do not wait for a backfill."""
    assert USUAL < NICENESS, "else nothing is seen here: run the tests at a usual priority"
    list(streams.outputs(_batches(seed=3)))
    low = _low_threads()
    assert low >= processors()
    alone = compiled(model.graph, precisions()[0])
    for batch in _batches(seed=3):
        alone(batch)
    assert _low_threads() == low
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == USUAL


def _low_threads() -> int:
    low = 0
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended
            low += os.getpriority(os.PRIO_PROCESS, int(task.name)) == NICENESS
    return low


def test_a_model_that_does_not_fit_twice_is_not_held_twice(model: Converted, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system would kill the worker for it, each time that it had much to encode."""
    weights = model.graph.with_suffix(".bin").stat().st_size
    monkeypatch.setattr(openvino_streams, "memory_left", lambda: 2.0 * weights - 1)
    with pytest.raises(ConfigError, match=r"MiB of memory are left, \d+ MiB were expected"):
        Streams(model.graph, precisions()[0])


def test_no_batch_has_no_output(streams: Streams) -> None:
    """And nothing waits."""
    assert list(streams.outputs([])) == []


def test_what_the_batches_raise_ends_it_and_the_next_call_works(streams: Streams) -> None:
    """A worker that is told to stop raises between two batches, while others are worked on."""
    batches = list(_batches(seed=5))

    def broken() -> Iterator[Inputs]:
        yield from batches[:4]
        raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        list(streams.outputs(broken()))
    assert len(list(streams.outputs(batches))) == len(batches)


def test_who_stops_early_leaves_nothing_at_work(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was begun is done by the time the outputs are closed."""
    begun: list[Any] = []
    graph = streams._compiled

    def create() -> Any:
        begun.append(graph.create_infer_request())
        return begun[-1]

    monkeypatch.setattr(streams, "_compiled", SimpleNamespace(create_infer_request=create))
    large: Inputs = {"input_ids": np.ones((64, 256), np.int64), "attention_mask": np.ones((64, 256), np.int64)}
    outputs = streams.outputs([large] * (streams._requests + 1))
    next(outputs)
    outputs.close()
    assert len(begun) == streams._requests
    assert all(request.wait_for(0) for request in begun)


def test_a_batch_that_the_graph_refuses_is_told(streams: Streams) -> None:
    """It is raised by its own turn, and not left in the stream."""
    good = list(_batches(seed=6))
    bad: Inputs = {"input_ids": np.ones((2, 16), np.int64), "attention_mask": np.ones((2, 17), np.int64)}
    with pytest.raises(RuntimeError):
        list(streams.outputs([good[0], bad, good[1]]))
    assert len(list(streams.outputs(good))) == len(good)
