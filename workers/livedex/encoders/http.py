"""The HTTP adapter: an embedding server does the work.

Prompts are put before the texts here, so that one server serves collections with different ones. Several requests are under way
at a time, up to the limit of the settings.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from livedex.encoders.dialects import Numbers, dialect_of
from livedex.encoders.port import Identity, ModelSpec, Vectors, dimension_of, shaped
from livedex.encoders.probe import TOLERANCE, agreement
from livedex.encoders.remote import Conversation, FailingError, InputRefusedError, Server
from livedex.errors import ConfigError, SystemicError, UnavailableError
from livedex.observe import logger

WITNESS = "the same words give the same vector"  # goes along with every request, or before it
QUERY_PATIENCE = 5.0  # seconds: somebody waits for the answer
FAILING_PATIENCE = 5.0  # seconds with a server that fails, before it is found out whether that is because of a text
QUERY_FAILING_PATIENCE = 0.5  # the same for those who wait, and all others with them
REMEMBERED = 300.0  # seconds, of a text that the server fails on, and of how many texts it refused
CULPRITS = 1_000  # of them
MOST_ALONE = 2  # of a request that cannot be halved: a text and the witness
_log = logger("encoder")
_FAILS = "the embedding server fails on this text, and on others does not"


class HttpEncoder:
    """A model behind an address."""

    def __init__(self, spec: ModelSpec, server: Server, talk: Conversation | None = None) -> None:
        talk = talk or Conversation(server)
        try:
            self._dialect = dialect_of(server, talk, spec.model)
            example = self._dialect.embed([WITNESS], None, lambda: False)
            witness = _sound(example[0])
        except (SystemicError, InputRefusedError) as error:
            raise ConfigError(str(error)) from error
        self._requests = ThreadPoolExecutor(server.concurrency, thread_name_prefix="embed-request")
        # of its own: whoever counts or searches does not wait behind what is embedded
        self._short = ThreadPoolExecutor(server.concurrency, thread_name_prefix="short-request")
        # texts that the server does not embed: until when that is remembered (monotonic), and why
        self._culprits: dict[str, tuple[float, str]] = {}
        self._room = _Room(self._dialect.texts_per_request - 1)
        self._normalise = spec.normalise
        self._witness = np.array([witness], np.float32)
        self._whole = len(witness)
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
        prompted = [self.identity.document_prompt + text for text in texts]
        parts = self._parts(prompted, most=self._dialect.texts_per_request)
        answers = self._short.map(lambda part: self._dialect.count_tokens(part, stopped), parts)
        return [count for found in answers for count in found]

    def encode_documents(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> Vectors:
        """See Encoder."""
        if not texts:
            return np.empty((0, self.identity.dimension), np.float32)
        parts = self._parts([self.identity.document_prompt + text for text in texts], most=self._room.most)
        answers = self._requests.map(lambda part: self._embedded(part, _Asker(stopped=stopped)), parts)
        return self._vectors([row for answer in answers for row in answer])

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """See Encoder. UnavailableError within QUERY_PATIENCE when the server does not answer; InputRefusedError when it fails
        on these texts, or gives no vector for one, and for others does: one of them is at fault.
        """
        asker = _Asker(deadline=time.monotonic() + QUERY_PATIENCE)
        prompted = [self.identity.query_prompt + text for text in texts]
        answers = self._short.map(lambda part: self._embedded(part, asker), self._parts(prompted, most=self._room.most))
        vectors = self._vectors([row for answer in answers for row in answer])
        for text, vector in zip(prompted, vectors, strict=True):
            if not np.isfinite(vector).all():
                raise self._blamed([text], "the embedding server gives no vector for this text, and for others does")
        return vectors

    @staticmethod
    def _parts(texts: list[str], *, most: int) -> list[list[str]]:
        size = max(1, most)
        return [texts[start : start + size] for start in range(0, len(texts), size)]

    def _embedded(self, part: list[str], asker: "_Asker", *, again: bool = False) -> Numbers:
        """The vectors of a request's texts. Where the server fails on them, and not on the witness, or refuses them, they are
        too many for it, or one is at fault, which is found: InputRefusedError, at once when it is asked for again, or no other
        would come to its turn. Whoever searches does not wait for that: one of his texts is at fault then.
        """
        self._refuse_culprits(part)
        if not self._room.most:
            return [row for text in part for row in self._alone(text, asker)]
        try:
            return self._checked(self._ask([WITNESS, *part], asker, again=again))
        except FailingError as error:
            if again:
                raise self._blamed(part, f"{_FAILS}: {error}") from error
            if not self._passes_witness(asker):
                raise
            if len(part) > 1 and not asker.waits:
                return self._in_halves(part, asker)
            return self._embedded(part, asker, again=True)  # it may have come back only in between
        except InputRefusedError:
            found = self._in_halves(part, asker) if len(part) > 1 else self._alone(part[0], asker)
        self._room.refused(len(part))
        return found

    def _in_halves(self, part: list[str], asker: "_Asker") -> Numbers:
        middle = len(part) // 2
        return self._embedded(part[:middle], asker) + self._embedded(part[middle:], asker)

    def _alone(self, text: str, asker: "_Asker", *, again: bool = False) -> Numbers:
        """The vector of a text, asked for by itself behind the witness."""
        try:
            self._checked(self._ask([WITNESS], asker))
        except InputRefusedError as error:
            raise SystemicError("embedder", f"the embedding server takes no text: {error}") from error
        try:
            return self._ask([text], asker, again=again)
        except FailingError as error:
            if again:
                raise self._blamed([text], f"{_FAILS}: {error}") from error
            return self._alone(text, asker, again=True)
        except InputRefusedError as error:
            raise self._blamed([text], str(error)) from error

    def _ask(self, texts: list[str], asker: "_Asker", *, again: bool = False) -> Numbers:
        """Of a server that failed on these, and then not on the witness, there is nothing to be waited for `again`."""
        failing = 0.0 if again else asker.failing_patience(len(texts))
        return self._dialect.embed(texts, asker.patience, asker.stopped, failing=failing)

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

    def _passes_witness(self, asker: "_Asker") -> bool:
        try:
            self._checked(self._dialect.embed([WITNESS], asker.witness_patience, asker.stopped))
        except (UnavailableError, InputRefusedError):
            return False
        return True

    def _checked(self, rows: Numbers) -> Numbers:
        """The rows behind that of the witness. SystemicError when the server runs another model than when it was opened, before
        any of its vectors is stored or searched for.
        """
        witness, *others = rows
        if agreement(np.array([_sound(witness)], np.float32), self._witness) < TOLERANCE:
            message = "gives other vectors than when this worker opened it: serve the model that the generation was made with"
            raise SystemicError("embedder", f"the embedding server {message}")
        return others

    def _vectors(self, rows: Numbers) -> Vectors:
        """As Encoder gives them; NaN where the server gave no vector, while it did of the witness."""
        whole = [[np.nan] * self._whole if row is None else row for row in rows]
        if any(len(row) != self._whole for row in whole):
            raise SystemicError("embedder", f"the embedding server gave a vector without {self._whole} dimensions")
        vectors = np.array(whole, np.float32).reshape(len(rows), self._whole)
        return shaped(vectors, self.identity.dimension, normalise=self._normalise)


def _sound(witness: list[float] | None) -> list[float]:
    """The vector of a text that any model embeds; SystemicError when it is none."""
    if witness is None or not np.isfinite(witness).all():
        raise SystemicError(
            "embedder", "the embedding server gives a vector that is no list of numbers: check its version, and its model"
        )
    return witness


class _Room:
    """How many texts the server takes in a request beside the witness. What it refused is tried again after a while: it may
    have been a limit of bytes, or of something between here and there.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._fewer, self._until = most, 0.0  # until when it is fewer (monotonic)

    @property
    def most(self) -> int:
        """So many; 0: each is asked for alone."""
        return self._fewer if time.monotonic() < self._until else self._most

    def refused(self, texts: int) -> None:
        """It does not take so many, and takes each of them."""
        if texts // 2 < self.most:
            self._fewer, self._until = texts // 2, time.monotonic() + REMEMBERED
            _log.info("encoder.takes_fewer", texts=texts // 2 + 1, seconds=REMEMBERED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asker:
    """Whose texts these are, and how long that one waits."""

    stopped: Callable[[], bool] = lambda: False
    deadline: float | None = None  # monotonic second, of who searches; None: of the index worker, which has time

    @property
    def waits(self) -> bool:
        """Whether somebody waits for the answer."""
        return self.deadline is not None

    @property
    def patience(self) -> float | None:
        """Seconds for a request; None: as many as the conversation gives it."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    @property
    def witness_patience(self) -> float:
        """Seconds to find out whether the server fails on everything."""
        return QUERY_FAILING_PATIENCE if self.waits else FAILING_PATIENCE

    def failing_patience(self, texts: int) -> float | None:
        """Seconds with a server that fails on so many texts; None: all the patience, since nothing more can be found out."""
        if self.waits:
            return QUERY_FAILING_PATIENCE
        return FAILING_PATIENCE if texts > MOST_ALONE else None
