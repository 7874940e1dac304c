"""What a database that dials out may ask the query worker, and the answer: one statement of two forms.

    SELECT embed(7, '6869', '5f0c...', 'hybrid', 1500)
    SELECT rerank(7, '7b22...', '81d2...', 'rerank', 1500)

The generation, the text in UTF-8 as hex digits, a tag that only who reads livedex.mailbox_secret can make, what is asked for,
and how many milliseconds are left. To rerank, the text is a JSON object with `query` and `passages`, and the answer a JSON
array of their scores. livedex.ask_endpoint in schema/sql/6_embed.sql asks so, over a connection that its session keeps. The tag
tells a database from another whose worker has generations of the same numbers.
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from livedex.catalogue import Generation
from livedex.core.mailbox import WIRE_PURPOSES, WirePurpose, is_tag_of
from livedex.errors import SystemicError, TimedOutError, UnavailableError
from livedex.observe import QueryMetrics, logger
from livedex.query.active import Encoders
from livedex.query.embedding import QueryEmbedder
from livedex.query.searcher import MOST_CANDIDATES
from livedex.tracing import OFF, Tracer, current, exemplar

MOST_BYTES = 8192  # of a text that is embedded
MOST_MILLISECONDS = 600_000

_STATEMENT = re.compile(
    r"\s*select\s+(?P<verb>embed|rerank)\s*\(\s*(?P<generation>\d{1,9})\s*,\s*'(?P<text>[0-9a-f]*)'\s*,\s*'(?P<tag>[0-9a-f]*)'\s*,"
    r"\s*'(?P<purpose>[a-z]+)'\s*,\s*(?P<milliseconds>\d{1,9})\s*\)\s*;?\s*",
    re.IGNORECASE,
)
_log = logger("wire")


class StatementError(Exception):
    """Why a statement is not answered, as the client is told."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code, self.hint = code, hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A statement that was understood."""

    generation_id: int
    text: str
    tag: bytes
    purpose: WirePurpose
    seconds: float  # until the deadline


def parse(statement: str) -> Asked:
    """One of the two forms; StatementError for anything else."""
    found = _STATEMENT.fullmatch(statement)
    if found is None or found["purpose"] not in WIRE_PURPOSES:
        raise StatementError("42601", "only SELECT embed(generation, 'text', 'tag', 'purpose', milliseconds) is answered here")
    reranks = found["purpose"] == "rerank"
    if reranks is not (found["verb"].lower() == "rerank"):
        raise StatementError("42601", f"{found['verb']} is not for the purpose {found['purpose']}")
    if len(found["text"]) > 2 * MOST_BYTES and not reranks:
        raise StatementError("54000", f"the text has {len(found['text']) // 2} bytes, at most {MOST_BYTES} can be embedded")
    try:
        text, tag = bytes.fromhex(found["text"]).decode(), bytes.fromhex(found["tag"])
    except ValueError:
        raise StatementError("22023", "the text is not UTF-8 in hex digits") from None
    milliseconds = min(int(found["milliseconds"]), MOST_MILLISECONDS)
    purpose = next(purpose for purpose in WIRE_PURPOSES if purpose == found["purpose"])
    return Asked(generation_id=int(found["generation"]), text=text, tag=tag, purpose=purpose, seconds=milliseconds / 1000)


class Answerer:
    """Answers statements with vectors and scores. `secret` reads livedex.mailbox_secret."""

    def __init__(
        self, encoders: Encoders, embedder: QueryEmbedder, metrics: QueryMetrics, secret: Callable[[], bytes],
        tracer: Tracer = OFF,
    ) -> None:  # fmt: skip
        self._encoders, self._embedder, self._metrics, self._secret = encoders, embedder, metrics, secret
        self._tracer = tracer
        self._known = b""  # the secret as it was last read

    def answer(self, statement: str) -> str:
        """The vector as pgvector writes it, or the scores as JSON; StatementError when there are none."""
        with self._tracer.span("answer sql", kind="server"):
            return self._timed(statement)

    def _timed(self, statement: str) -> str:
        began, code = time.perf_counter(), "00000"
        purpose: WirePurpose = "embed"
        try:
            asked = parse(statement)
            purpose = asked.purpose
            return self._answered(asked, began + asked.seconds)
        except StatementError as error:
            code = error.code
            raise
        finally:
            if purpose != "rerank":  # that is a stage of a search, which was counted when its text came
                self._metrics.requests.labels("sql", code).inc()
            if code == "00000" and purpose != "rerank":
                self._metrics.search.labels("sql", purpose).observe(time.perf_counter() - began, exemplar(current()))

    def _answered(self, asked: Asked, deadline: float) -> str:
        verb = "rerank the rows" if asked.purpose == "rerank" else "embed the text"
        try:
            self._check_tag(asked)
            generation = self._generation(asked)
            if asked.purpose == "rerank":
                with self._tracer.span("rerank"):
                    return self._scores(generation, asked.text, deadline)
            with self._tracer.span("embed"):
                return _written(np.asarray(self._embedder.vectors(generation, [asked.text], deadline=deadline)[0]))
        except TimedOutError:
            raise StatementError(
                "57014", f"the query worker did not {verb} in time", "ask again with a longer timeout"
            ) from None
        except (UnavailableError, SystemicError) as error:
            raise StatementError("57P03", str(error)) from None
        except StatementError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a model raises, the next text is answered
            _log.error("wire.failed", error=type(error).__name__)
            raise StatementError("57P03", f"the query worker could not {verb}", "its log says why") from None

    def _generation(self, asked: Asked) -> Generation:
        found = self._encoders.with_id(asked.generation_id)
        if found is None:
            raise StatementError("57P03", f"the generation {asked.generation_id} is not one that this query worker serves")
        return found

    def _scores(self, generation: Generation, content: str, deadline: float) -> str:
        """The scores of the passages in `content`."""
        try:
            asked = json.loads(content)
            query, passages = str(asked["query"]), [str(passage) for passage in asked["passages"]]
        except (ValueError, LookupError, TypeError):
            raise StatementError("22023", "what is to be reranked is no JSON object with query and passages") from None
        if len(passages) > MOST_CANDIDATES:
            raise StatementError(
                "54000", f"{len(passages)} passages are to be reranked, at most {MOST_CANDIDATES} are at a time"
            )
        with self._metrics.search_stage.labels("rerank").time():
            scores = self._encoders.reranker(generation).scores(query, passages, deadline=deadline)
        return json.dumps([float(score) for score in scores], allow_nan=False)

    def _check_tag(self, asked: Asked) -> None:
        if self._fits(asked):
            return
        self._known = self._secret()  # not read yet, or another since
        if not self._fits(asked):
            _log.warning("wire.forged")
            why = "the query worker at the foreign server livedex_worker is connected to another database"
            raise StatementError("57P03", why, "the options host and port must lead to a query worker of this database")

    def _fits(self, asked: Asked) -> bool:
        known = self._known
        return bool(known) and is_tag_of(asked.tag, known, asked.generation_id, asked.purpose, asked.text)


def _written(vector: NDArray[np.float32]) -> str:
    if not np.isfinite(vector).all():
        raise ValueError("the model gave a vector with a number that is none")
    return f"[{','.join(f'{number:.9g}' for number in vector.tolist())}]"  # nine digits are a float32, no less and no more
