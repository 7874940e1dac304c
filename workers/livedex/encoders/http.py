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

WITNESS = "the same words give the same vector"  # goes along with every request
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
        # of its own: whoever counts does not wait behind what is embedded
        self._counts = ThreadPoolExecutor(server.concurrency, thread_name_prefix="count-request")
        # texts that the server does not embed: until when that is remembered (monotonic), and why
        self._culprits: dict[str, tuple[float, str]] = {}
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
        parts = self._parts([self.identity.document_prompt + text for text in texts], beside=1)
        answers = self._requests.map(lambda part: self._checked(self._embed([WITNESS, *part], stopped)), parts)
        return self._vectors([row for answer in answers for row in answer])

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """See Encoder. UnavailableError within QUERY_PATIENCE when the server does not answer; InputRefusedError when it fails
        on these texts, and on others does not: one of them is at fault.
        """
        prompted = [self.identity.query_prompt + text for text in texts]
        self._refuse_culprits(prompted)
        parts = self._parts(prompted, beside=1)
        return self._vectors([row for part in parts for row in self._checked(self._asked([WITNESS, *part]))])

    def _asked(self, part: list[str]) -> Numbers:
        """The vectors of a request's queries, or of parts of it where they are too many for the server."""
        try:
            return self._dialect.embed(part, QUERY_PATIENCE, lambda: False, failing=QUERY_FAILING_PATIENCE)
        except FailingError as error:
            if not self._passes_witness(QUERY_FAILING_PATIENCE, lambda: False):
                raise
            raise self._blamed([text for text in part if text != WITNESS], f"{_FAILS}: {error}") from error
        except InputRefusedError:
            if len(part) == 1:
                raise
        return _in_halves(self._asked, part)

    def _parts(self, texts: list[str], *, beside: int = 0) -> list[list[str]]:
        """As many texts in each as go into one request `beside` others."""
        size = max(1, self._dialect.texts_per_request - beside)
        return [texts[start : start + size] for start in range(0, len(texts), size)]

    def _embed(self, part: list[str], stopped: Callable[[], bool]) -> Numbers:
        """The vectors of a request's texts. Where the server fails on them, and not on the witness, or refuses them, they are
        too many for it, or one is at fault, which is found: InputRefusedError, at once when it is asked for again, or no other
        would come to its turn.
        """
        self._refuse_culprits(part)
        try:
            return self._dialect.embed(part, None, stopped, failing=FAILING_PATIENCE if len(part) > 1 else None)
        except FailingError as error:
            if part == [WITNESS] or not self._passes_witness(FAILING_PATIENCE, stopped):
                raise
            if len(part) == 1:
                raise self._blamed(part, f"{_FAILS}: {error}") from error
        except InputRefusedError as error:
            if part == [WITNESS]:
                raise SystemicError("embedder", f"the embedding server takes no text: {error}") from error
            if len(part) == 1:
                raise self._blamed(part, str(error)) from error
        return _in_halves(lambda half: self._embed(half, stopped), part)

    def _refuse_culprits(self, texts: Sequence[str]) -> None:
        now = time.monotonic()
        for text in texts:
            until, why = self._culprits.get(text, (0.0, ""))
            if until > now:
                raise InputRefusedError(why)

    def _blamed(self, texts: Sequence[str], why: str) -> InputRefusedError:
        """What is told of texts that the server does not embed; a single one is remembered."""
        if len(texts) == 1:
            known = dict(list(self._culprits.items())[-CULPRITS:])
            self._culprits = {**known, texts[0]: (time.monotonic() + REMEMBERED, why)}
        return InputRefusedError(why)

    def _passes_witness(self, patience: float, stopped: Callable[[], bool]) -> bool:
        try:
            self._dialect.embed([WITNESS], patience, stopped)
        except UnavailableError:
            return False
        return True

    def _checked(self, rows: Numbers) -> Numbers:
        """The rows behind that of the witness. SystemicError when the server runs another model than when it was opened, before
        any of its vectors is stored or searched for.
        """
        witness, *others = rows
        if agreement(np.array([witness], np.float32), self._witness) < TOLERANCE:
            message = "gives other vectors than when this worker opened it: serve the model that the generation was made with"
            raise SystemicError("embedder", f"the embedding server {message}")
        return others

    def _vectors(self, rows: Numbers) -> Vectors:
        if any(len(row) != self._whole for row in rows):
            raise SystemicError("embedder", f"the embedding server gave a vector without {self._whole} dimensions")
        vectors = np.array(rows, np.float32).reshape(len(rows), self._whole)
        return shaped(vectors, self.identity.dimension, normalise=self._normalise)


def _in_halves(ask: Callable[[list[str]], Numbers], part: list[str]) -> Numbers:
    middle = len(part) // 2
    return ask(part[:middle]) + ask(part[middle:])
