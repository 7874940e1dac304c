"""The hash encoder of a worker process, told by a file how to behave, and writing down what it embeds.

A scenario owns a folder: `behaviour.json` is read whenever it changes, and each encoding appends a line to `embedded-PID`.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from livedex.encoders import Encoder, Identity, ModelSpec
from livedex.encoders.hash import HashEncoder
from livedex.encoders.port import EncodingStopped, Vectors
from livedex.errors import UnavailableError

_TICK = 0.05  # seconds between two looks at whether a slow encoding is to be stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How texts are embedded. With `mark`, only calls with a text that has the mark are affected, except by `seconds` and
    `each`.
    """

    fails: str = ""  # raise, nan, zero, dimension, unavailable, memory
    mark: str = ""
    seconds: float = 0.0  # that each call takes
    each: float = 0.0  # seconds that each text takes beside that
    revision: str = "1"  # read when the encoder is opened
    salt: str = ""  # another one makes other vectors


class Control:
    """The scenario's side of the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.set(Behaviour())

    def set(self, behaviour: Behaviour) -> None:
        """From the next call on, in every worker."""
        draft = self.folder / "behaviour.new"
        draft.write_text(json.dumps(asdict(behaviour)), encoding="utf-8")
        draft.replace(self.folder / "behaviour.json")

    def calls(self) -> list[list[str]]:
        """What was embedded so far: the digests of the texts of each call that succeeded, worker by worker."""
        files = sorted(self.folder.glob("embedded-*"), key=lambda path: path.stat().st_mtime_ns)
        return [line.split() for path in files for line in path.read_text(encoding="ascii").splitlines()]

    def repeated(self) -> int:
        """Chunks that were embedded more than once: how many times too often in all."""
        return sum(count - 1 for count in Counter(digest for call in self.calls() for digest in call).values())

    def wasted_calls(self) -> int:
        """Batches that were embedded for nothing, in part at least: another call had to make some of their vectors again."""
        calls = self.calls()
        times = Counter(digest for call in calls for digest in call)
        last = {digest: number for number, call in enumerate(calls) for digest in call}
        return sum(1 for number, call in enumerate(calls) if any(times[d] > 1 and last[d] != number for d in call))


class ControlledEncoder(HashEncoder):
    """The hash encoder, except for what the folder says."""

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        super().__init__(spec)
        self._folder = folder
        self._stamp = 0
        self._behaviour = Behaviour()
        self._never = Event()
        self.identity: Identity = replace(self.identity, revision=self._told().revision)

    def encode_documents(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> Vectors:
        """See Encoder."""
        told = self._told()
        self._take_time(told.seconds + told.each * len(texts), stopped)
        affected = told.fails if not told.mark or any(told.mark in text for text in texts) else ""
        if affected == "raise":
            raise RuntimeError("the input has a token that the model does not know")
        if affected == "memory":
            raise MemoryError
        if affected == "unavailable":
            raise UnavailableError("embedder", "the embedder does not answer")
        vectors = super().encode_documents([told.salt + text for text in texts], stopped=stopped)
        if affected == "nan":
            vectors[0, 0] = np.nan
        elif affected == "zero":
            vectors[0] = 0
        elif affected == "dimension":
            vectors = vectors[:, :-1]
        if not affected:
            self._write_down(texts)
        return vectors

    def _take_time(self, seconds: float, stopped: Callable[[], bool]) -> None:
        while seconds > 0:
            if stopped():
                raise EncodingStopped
            self._never.wait(min(_TICK, seconds))
            seconds -= _TICK

    def _told(self) -> Behaviour:
        path = self._folder / "behaviour.json"
        stamp = path.stat().st_mtime_ns
        if stamp != self._stamp:
            self._behaviour, self._stamp = Behaviour(**json.loads(path.read_text(encoding="utf-8"))), stamp
        return self._behaviour

    def _write_down(self, texts: Sequence[str]) -> None:
        """One write, so that a SIGKILL leaves a whole line or none."""
        digests = (hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts)
        with (self._folder / f"embedded-{os.getpid()}").open("ab", buffering=0) as file:
            file.write((" ".join(digests) + "\n").encode())


def install(folder: Path) -> None:
    """Make this process's hash encoders controlled ones."""
    from livedex import catalogue

    def open_encoder(_embedder: Any, spec: ModelSpec, *, check: Callable[[Encoder], None], **_others: Any) -> ControlledEncoder:
        encoder = ControlledEncoder(spec, folder)
        check(encoder)
        return encoder

    assert hasattr(catalogue, "open_encoder")
    setattr(catalogue, "open_encoder", open_encoder)  # noqa: B010 - it is not the module's to give away
