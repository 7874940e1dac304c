"""The OpenVINO adapter of cross-encoders: bfloat16 where the processor has it and the scores stay close to torch's."""

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livedex.encoders.batching import batches, filled_width
from livedex.encoders.conversion import FACTS
from livedex.encoders.converted import converted
from livedex.encoders.models import digest_of
from livedex.encoders.openvino_streams import compiled, precisions
from livedex.encoders.reranker import Scores, in_turn, too_late
from livedex.encoders.reranker_conversion import RerankerFacts, pairs
from livedex.errors import ConfigError
from livedex.observe import logger

TOKENS_PER_BATCH = 1024  # small batches stay in the processor's cache, and end soon
TOLERANCE = 0.02  # the largest difference to torch's logits, as a share of the span of them

_log = logger("reranker")


class OpenVinoReranker:
    """A cross-encoder on the processor, without torch in this process."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        model = converted(folder, digest_of(folder), by="reranker_conversion")
        self._facts = RerankerFacts(**json.loads((model.folder / FACTS).read_text()))
        self._tokenizer = Tokenizer.from_file(str(model.tokenizer))
        self._tokenizer.enable_truncation(self._facts.max_tokens, strategy="longest_first")
        self._lock = threading.Lock()
        self._compile(model.graph, model.reference)

    def scores(self, query: str, passages: Sequence[str], *, deadline: float) -> Scores:
        """See Reranker."""
        logits = self._logits([(query, passage) for passage in passages], deadline)
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32) if self._facts.sigmoid else logits

    def _compile(self, graph: Path, reference: NDArray[np.float32]) -> None:
        """Compile in the fastest precision that gives torch's scores."""
        span = max(float(np.ptp(reference)), 1.0)
        off = float("inf")
        for precision in precisions():
            self._compiled = compiled(graph, precision)
            off = float(np.abs(self._logits(pairs(), float("inf")) - reference).max()) / span
            _log.info("reranker.checked", encoder="openvino", precision=precision, off=round(off, 4))
            if off <= TOLERANCE:
                self.precision = precision
                return
        raise ConfigError(
            f"the reranker in {graph.parent} gives other scores on openvino than on torch: off by {off:.3f} of their span, at "
            f"most {TOLERANCE} was expected: set LIVEDEX_EMBEDDER=torch"
        )

    def _logits(self, asked: Sequence[tuple[str, str]], deadline: float) -> Scores:
        encoded = self._tokenizer.encode_batch_fast(list(asked))
        found = np.empty(len(asked), np.float32)
        for part in batches([len(each.ids) for each in encoded], TOKENS_PER_BATCH):
            if time.perf_counter() >= deadline:
                raise too_late()
            inputs = self._inputs([encoded[index] for index in part])
            if deadline == float("inf"):
                found[part] = self._compiled(inputs)[0]
                continue
            in_turn(self._lock, deadline)
            try:
                found[part] = self._compiled(inputs)[0]
            finally:
                self._lock.release()
        return found

    def _inputs(self, rows: Sequence[Any]) -> dict[str, NDArray[np.int64]]:
        width = filled_width(max(len(row.ids) for row in rows), self._facts.max_tokens)
        inputs = {name: np.zeros((len(rows), width), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
        for number, row in enumerate(rows):
            length = len(row.ids)
            inputs["input_ids"][number, :length] = row.ids
            inputs["attention_mask"][number, :length] = 1
            inputs["token_type_ids"][number, :length] = row.type_ids
        return inputs
