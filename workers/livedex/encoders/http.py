"""The HTTP adapter: an embedding server does the work.

Prompts are put before the texts here, so that one server serves collections with different ones. Several requests are under way
at a time, up to the limit of the settings.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from livedex.encoders.dialects import Numbers, dialect_of
from livedex.encoders.port import Identity, ModelSpec, Vectors, normalised
from livedex.encoders.probe import TOLERANCE, agreement
from livedex.encoders.remote import Conversation, InputRefusedError, Server
from livedex.errors import ConfigError, SystemicError

WITNESS = "the same words give the same vector"  # goes along with every batch
QUERY_PATIENCE = 5.0  # seconds: somebody waits for the answer


class HttpEncoder:
    """A model behind an address."""

    def __init__(self, spec: ModelSpec, server: Server, talk: Conversation | None = None) -> None:
        talk = talk or Conversation(server)
        try:
            self._dialect = dialect_of(server, talk, spec.model)
            example = self._dialect.embed([WITNESS], None, lambda: False)
        except (SystemicError, InputRefusedError) as error:
            raise ConfigError(str(error)) from error
        self._requests = ThreadPoolExecutor(server.concurrency, thread_name_prefix="embed-request")
        self._normalise = spec.normalise
        self._witness = np.array(example, np.float32)
        self.identity = Identity(
            encoder="http",
            precision="remote",
            model=spec.model,
            revision=self._dialect.revision,
            dimension=len(example[0]),
            max_tokens=self._dialect.max_tokens,
            query_prompt=spec.query_prompt or "",
            document_prompt=spec.document_prompt or "",
        )

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See Encoder."""
        prompt = self.identity.document_prompt
        return self._dialect.count_tokens([prompt + text for text in texts])

    def encode_documents(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> Vectors:
        """See Encoder."""
        if not texts:
            return np.empty((0, self.identity.dimension), np.float32)
        prompted = [WITNESS, *(self.identity.document_prompt + text for text in texts)]
        size = self._dialect.texts_per_request
        parts = [prompted[start : start + size] for start in range(0, len(prompted), size)]
        answers = self._requests.map(lambda part: self._dialect.embed(part, None, stopped), parts)
        first, *rows = [row for answer in answers for row in answer]
        self._check_witness(first)
        return self._vectors(rows)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """See Encoder. UnavailableError within QUERY_PATIENCE when the server does not answer."""
        prompted = [self.identity.query_prompt + text for text in texts]
        return self._vectors(self._dialect.embed(prompted, QUERY_PATIENCE, lambda: False))

    def _check_witness(self, row: list[float]) -> None:
        """SystemicError when the server runs another model than when it was opened, before any of its vectors is stored."""
        if agreement(np.array([row], np.float32), self._witness) < TOLERANCE:
            message = "gives other vectors than when this worker opened it: serve the model that the generation was made with"
            raise SystemicError("embedder", f"the embedding server {message}")

    def _vectors(self, rows: Numbers) -> Vectors:
        if any(len(row) != self.identity.dimension for row in rows):
            raise SystemicError("embedder", f"the embedding server gave a vector without {self.identity.dimension} dimensions")
        vectors = np.array(rows, np.float32).reshape(len(rows), self.identity.dimension)
        return normalised(vectors) if self._normalise else vectors
