"""Cross-encoders read a question together with a passage, and say how well they fit: slower than comparing vectors, and better.
They judge the few candidates that a search found.

Scores are float32, shape (len(passages),), in the order of the passages; higher is better, comparable within one question only.
"""

import re
import threading
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from livedex.config import EmbedderName
from livedex.encoders.models import find_reranker
from livedex.errors import ConfigError, TimedOutError
from livedex.observe import logger

Scores = NDArray[np.float32]

PAIRS_PER_BATCH = 8  # of like length: between two of them the deadline is looked at

_log = logger("reranker")


class Reranker(Protocol):
    """An opened cross-encoder. Its method may be called from any thread; one call at a time has all the cores."""

    def scores(self, query: str, passages: Sequence[str], *, deadline: float) -> Scores:
        """How well each passage fits. TimedOutError when that was not done by `deadline`, a time of time.perf_counter()."""
        ...


def open_reranker(embedder: EmbedderName, name: str) -> Reranker:
    """Load the cross-encoder `name` by the adapter that the embedder says. Seconds. ConfigError when it cannot be had."""
    if embedder == "hash":
        return WordsReranker()
    folder = find_reranker(name)
    if embedder == "openvino" or (embedder in ("auto", "http") and find_spec("openvino")):
        from livedex.encoders.openvino_reranker import OpenVinoReranker

        try:
            return OpenVinoReranker(folder)
        except Exception as error:  # whatever openvino makes of the model
            if embedder == "openvino":
                raise
            _log.warning("reranker.passed_over", encoder="openvino", why=str(error))
    return TorchReranker(folder)


def in_turn(lock: threading.Lock, deadline: float) -> None:
    """Take the lock; TimedOutError when others have it for too long."""
    if not lock.acquire(timeout=max(0.0, deadline - time.perf_counter())):
        raise too_late()


def too_late() -> TimedOutError:
    """Why there are no scores."""
    return TimedOutError("the deadline passed before the candidates were reranked: give the search a longer timeout")


class TorchReranker:
    """A CrossEncoder of sentence-transformers."""

    def __init__(self, folder: Path) -> None:
        from sentence_transformers import CrossEncoder

        from livedex.encoders.reranker_conversion import facts

        try:
            self._model: Any = CrossEncoder(str(folder), local_files_only=True, trust_remote_code=False)
            facts(self._model)
        except Exception as error:  # whatever a broken folder makes of the library
            raise ConfigError(f"the reranker in {folder} does not load: {type(error).__name__}: {error}") from error
        self._lock = threading.Lock()

    def scores(self, query: str, passages: Sequence[str], *, deadline: float) -> Scores:
        """See Reranker."""
        found = np.empty(len(passages), np.float32)
        order = sorted(range(len(passages)), key=lambda index: -len(passages[index]))
        for start in range(0, len(order), PAIRS_PER_BATCH):
            if time.perf_counter() >= deadline:
                raise too_late()
            part = order[start : start + PAIRS_PER_BATCH]
            in_turn(self._lock, deadline)
            try:
                found[part] = self._model.predict([(query, passages[index]) for index in part], show_progress_bar=False)
            finally:
                self._lock.release()
        return found


class WordsReranker:
    """For tests, beside the hash encoder: the share of the question's words that a passage has."""

    def scores(self, query: str, passages: Sequence[str], *, deadline: float) -> Scores:
        """See Reranker."""
        if time.perf_counter() >= deadline:
            raise too_late()
        wanted = _words(query)
        return np.array([len(wanted & _words(passage)) / max(1, len(wanted)) for passage in passages], np.float32)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
