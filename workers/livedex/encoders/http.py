"""The HTTP adapter: an embedding server does the work.

Prompts are put before the texts here, so that one server serves collections with different ones. Several requests are under way
at a time, up to the limit of the settings.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from livedex.encoders.dialects import Numbers, dialect_of
from livedex.encoders.port import Identity, ModelSpec, Vectors, dimension_of, shaped
from livedex.encoders.probe import TOLERANCE, agreement
from livedex.encoders.remote import Conversation, FailingError, InputRefusedError, Server
from livedex.errors import ConfigError, SystemicError, UnavailableError

WITNESS = "the same words give the same vector"  # goes along with every batch
QUERY_PATIENCE = 5.0  # seconds: somebody waits for the answer
FAILING_PATIENCE = 5.0  # seconds with a server that fails, before it is found out whether that is because of a text
QUERY_FAILING_PATIENCE = 0.5  # the same for those who wait, and all others with them
REMEMBERED = 300.0  # seconds, of a text that the server fails on
CULPRITS = 1_000  # of them
_FAILS = "the embedding server fails on this text, and on others does not"


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
        # of its own: planning does not wait until all of the batch before is embedded
        self._counts = ThreadPoolExecutor(server.concurrency, thread_name_prefix="count-request")
        self._culprits: dict[str, float] = {}  # texts that the server fails on, and until when (monotonic) that is remembered
        self._normalise = spec.normalise
        self._witness = np.array(example, np.float32)
        self._whole = len(example[0])
        self.identity = Identity(
            encoder="http",
            precision="remote",
            model=spec.model,
            revision=self._dialect.revision,
            dimension=dimension_of(self._whole, spec.dimension),
            max_tokens=self._dialect.max_tokens,
            query_prompt=spec.query_prompt or "",
            document_prompt=spec.document_prompt or "",
        )

    def count_tokens(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> list[int]:
        """See Encoder."""
        parts = self._parts([self.identity.document_prompt + text for text in texts])
        answers = self._counts.map(lambda part: self._dialect.count_tokens(part, stopped), parts)
        return [count for found in answers for count in found]

    def encode_documents(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> Vectors:
        """See Encoder."""
        if not texts:
            return np.empty((0, self.identity.dimension), np.float32)
        prompted = [WITNESS, *(self.identity.document_prompt + text for text in texts)]
        answers = self._requests.map(lambda part: self._embed(part, stopped), self._parts(prompted))
        first, *rows = [row for answer in answers for row in answer]
        self._check_witness(first)
        return self._vectors(rows)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """See Encoder. UnavailableError within QUERY_PATIENCE when the server does not answer; InputRefusedError when it fails
        on these texts, and on others does not: one of them is at fault.
        """
        prompted = [self.identity.query_prompt + text for text in texts]
        self._refuse_culprits(prompted)
        try:
            rows = self._dialect.embed(prompted, QUERY_PATIENCE, lambda: False, failing=QUERY_FAILING_PATIENCE)
        except FailingError as error:
            if not self._passes_witness(QUERY_FAILING_PATIENCE, lambda: False):
                raise
            raise self._blamed(prompted, error) from error
        return self._vectors(rows)

    def _parts(self, texts: list[str]) -> list[list[str]]:
        size = self._dialect.texts_per_request
        return [texts[start : start + size] for start in range(0, len(texts), size)]

    def _embed(self, part: list[str], stopped: Callable[[], bool]) -> Numbers:
        """The vectors of a request's texts. Where the server fails on them, and not on the witness, the text is found that it
        fails on: InputRefusedError, at once when it is asked for again, or no other would come to its turn.
        """
        self._refuse_culprits(part)
        try:
            return self._dialect.embed(part, None, stopped, failing=FAILING_PATIENCE if len(part) > 1 else None)
        except FailingError as error:
            if part == [WITNESS] or not self._passes_witness(FAILING_PATIENCE, stopped):
                raise
            if len(part) == 1:
                raise self._blamed(part, error) from error
        middle = len(part) // 2
        return self._embed(part[:middle], stopped) + self._embed(part[middle:], stopped)

    def _refuse_culprits(self, texts: Sequence[str]) -> None:
        now = time.monotonic()
        if any(self._culprits.get(text, 0.0) > now for text in texts):
            raise InputRefusedError(_FAILS)

    def _blamed(self, texts: Sequence[str], error: FailingError) -> InputRefusedError:
        """What is told of texts that the server fails on; a single one is remembered."""
        if len(texts) == 1:
            self._culprits = {**dict(list(self._culprits.items())[-CULPRITS:]), texts[0]: time.monotonic() + REMEMBERED}
        return InputRefusedError(f"{_FAILS}: {error}")

    def _passes_witness(self, patience: float, stopped: Callable[[], bool]) -> bool:
        try:
            self._dialect.embed([WITNESS], patience, stopped)
        except UnavailableError:
            return False
        return True

    def _check_witness(self, row: list[float]) -> None:
        """SystemicError when the server runs another model than when it was opened, before any of its vectors is stored."""
        if agreement(np.array([row], np.float32), self._witness) < TOLERANCE:
            message = "gives other vectors than when this worker opened it: serve the model that the generation was made with"
            raise SystemicError("embedder", f"the embedding server {message}")

    def _vectors(self, rows: Numbers) -> Vectors:
        if any(len(row) != self._whole for row in rows):
            raise SystemicError("embedder", f"the embedding server gave a vector without {self._whole} dimensions")
        vectors = np.array(rows, np.float32).reshape(len(rows), self._whole)
        return shaped(vectors, self.identity.dimension, normalise=self._normalise)
