"""The OpenVINO adapter: a sentence-transformers model as a compiled graph, fed with batches of texts of like length. A few of
them, which somebody waits for, have all cores one after another; many of documents have a core each (openvino_streams.py).

It takes bfloat16 where the processor has it and the vectors stay those of torch, checked on the probe's texts each time that
a model is opened; else single precision.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livedex.encoders.batching import batches, count_tokens, even_budget, filled_width, token_ids
from livedex.encoders.converted import Converted, converted, quantised
from livedex.encoders.models import digest_of, find_model
from livedex.encoders.openvino_streams import Inputs, Streams, compiled, precisions
from livedex.encoders.port import EncodingStopped, Identity, ModelSpec, Vectors, dimension_of, normalised, shaped
from livedex.encoders.probe import TEXTS, TOLERANCE, cosines
from livedex.errors import ConfigError, loggable
from livedex.observe import logger
from livedex.resources import processors

TOKENS_PER_BATCH = 1024  # small batches stay in the processor's cache
LEAST_TOKENS = 512  # of documents for each core, from which on each has batches of its own
LOSSY_TOLERANCE = 0.98  # the mean cosine to torch's vectors that int8 must have, where it is asked for

_log = logger("encoder")


class OpenVinoEncoder:
    """A sentence-transformers model on the processor, without torch in this process."""

    def __init__(self, spec: ModelSpec) -> None:
        folder = find_model(spec.model)
        revision = digest_of(folder)
        model = converted(folder, revision)
        facts = model.facts
        self._counting, self._reading = _tokenizers(model, facts.max_tokens)
        self._lock = threading.Lock()
        self._max_tokens = facts.max_tokens
        self._normalise = spec.normalise
        self._opening = threading.Lock()
        self._streams: Streams | None = None  # from when there is much to do first: they take the model's memory again
        self._cores = processors()  # for streams; 1 where they do not work
        precision = self._compile_int8(model) if spec.precision == "int8" else self._compile(model)
        self.identity = Identity(
            encoder="openvino",
            precision=precision,
            model=spec.model,
            revision=revision,
            dimension=dimension_of(facts.dimension, spec.dimension),
            max_tokens=facts.max_tokens,
            query_prompt=facts.query_prompt if spec.query_prompt is None else spec.query_prompt,
            document_prompt=facts.document_prompt if spec.document_prompt is None else spec.document_prompt,
        )

    def count_tokens(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> list[int]:  # noqa: ARG002
        """See Encoder."""
        return count_tokens(self._counting, [self.identity.document_prompt + text for text in texts])

    def encode_documents(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> Vectors:
        """See Encoder."""
        return self._encode(self.identity.document_prompt, texts, in_streams=True, stopped=stopped)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """See Encoder."""
        return self._encode(self.identity.query_prompt, texts)

    def _compile(self, model: Converted) -> str:
        """Compile in the fastest precision that gives torch's vectors, and return it."""
        found = 0.0
        for precision in precisions():
            found = float(self._cosines(model, model.graph, precision).min())
            _log.info("encoder.checked", encoder="openvino", precision=precision, cosine=round(found, 6))
            if found >= TOLERANCE:
                return precision
        raise ConfigError(
            f"the model in {model.folder} gives other vectors on openvino than on torch: cosine {found:.5f}, at least "
            f"{TOLERANCE} was expected: set LIVEDEX_EMBEDDER=torch"
        )

    def _compile_int8(self, model: Converted) -> str:
        """Compile the int8 graph, which loses something: how much is said, and too much is refused."""
        found = self._cosines(model, quantised(model), "f32")
        mean, least = float(found.mean()), float(found.min())
        _log.warning("encoder.lossy", encoder="openvino", precision="int8", cosine=round(mean, 4), least=round(least, 4))
        if mean < LOSSY_TOLERANCE:
            raise ConfigError(
                f"the model in {model.folder} loses too much in int8: mean cosine {mean:.4f} to torch's vectors, at least "
                f'{LOSSY_TOLERANCE} was expected: set precision = "auto"'
            )
        return "int8"

    def _cosines(self, model: Converted, graph: Path, precision: str) -> Vectors:
        """Compile, and compare with torch's vectors of the probe's texts."""
        texts = [model.facts.document_prompt + text for text in TEXTS]
        self._graph, self._inference = graph, precision
        self._compiled = compiled(graph, precision)
        return cosines(normalised(self._vectors(texts)), model.reference)

    def _encode(
        self, prompt: str, texts: Sequence[str], *, in_streams: bool = False, stopped: Callable[[], bool] = lambda: False
    ) -> Vectors:
        if not texts:
            return np.empty((0, self.identity.dimension), np.float32)
        vectors = self._vectors([prompt + text for text in texts], in_streams=in_streams, stopped=stopped)
        return shaped(vectors, self.identity.dimension, normalise=self._normalise)

    def _vectors(
        self, texts: Sequence[str], *, in_streams: bool = False, stopped: Callable[[], bool] = lambda: False
    ) -> Vectors:
        """As the graph gives them; `in_streams` where there is work for all cores."""
        rows = token_ids(self._reading, texts)
        lengths = [len(tokens) for tokens in rows]
        streams = self._opened_streams() if in_streams and sum(lengths) >= self._cores * LEAST_TOKENS else None
        budget = even_budget(sum(lengths), TOKENS_PER_BATCH, self._cores) if streams else TOKENS_PER_BATCH
        parts = list(batches(lengths, budget))

        def inputs() -> Iterator[Inputs]:
            for part in parts:
                if stopped():
                    raise EncodingStopped
                yield self._inputs([rows[index] for index in part])

        vectors: dict[int, Vectors] = {}
        with closing(streams.outputs(inputs()) if streams else (self._run(each) for each in inputs())) as outputs:
            for part, output in zip(parts, outputs, strict=True):
                vectors.update(zip(part, output, strict=True))
        return np.stack([vectors[index] for index in range(len(rows))])

    def _inputs(self, rows: Sequence[NDArray[np.int32]]) -> Inputs:
        """Token ids as the graph takes them."""
        width = filled_width(max(map(len, rows)), self._max_tokens)
        ids: NDArray[np.int64] = np.zeros((len(rows), width), np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return {"input_ids": ids, "attention_mask": mask}

    def _run(self, inputs: Inputs) -> Vectors:
        """The vectors of one batch."""
        with self._lock:  # a copy: the next run writes its answer to the same place
            return np.array(self._compiled(inputs)[0], np.float32)

    def _opened_streams(self) -> Streams | None:
        """The graph in streams, if there is more than one core and they give the vectors that one batch after another has."""
        with self._opening:
            if self._streams is None and self._cores > 1:
                try:
                    self._streams = self._checked(Streams(self._graph, self._inference))
                except Exception as error:  # noqa: BLE001 - whatever keeps them from working, no text is at fault
                    _log.warning("encoder.no_streams", encoder="openvino", why=loggable(error))
                    self._cores = 1
            return self._streams

    def _checked(self, streams: Streams) -> Streams:
        batch = self._inputs(token_ids(self._reading, TEXTS))
        (found,) = streams.outputs([batch])
        cosine = float(cosines(normalised(found), normalised(self._run(batch))).min())
        if not cosine >= TOLERANCE:
            raise ConfigError(f"they give other vectors: cosine {cosine:.5f}, at least {TOLERANCE} was expected")
        return streams


def _tokenizers(model: Converted, max_tokens: int) -> tuple[Any, Any]:
    """(one that counts all tokens, one that stops at what the model reads)."""
    from tokenizers import Tokenizer

    counting, reading = (Tokenizer.from_file(str(model.tokenizer)) for _ in range(2))
    reading.enable_truncation(max_tokens)
    return counting, reading
