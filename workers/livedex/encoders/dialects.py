"""The two ways of asking an embedding server: Text Embeddings Inference, and OpenAI's /embeddings."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from livedex.encoders.remote import Conversation, InputRefusedError, Server
from livedex.errors import ConfigError, SystemicError

TEXTS_PER_REQUEST = 32
_FRAME = 2  # special tokens around a text

Numbers = list[list[float] | None]  # of each text; None: what is no list of numbers


class Dialect(Protocol):
    """A server's way to be asked, and what it says of its model."""

    max_tokens: int
    revision: str  # empty: the server does not say
    texts_per_request: int

    def embed(
        self, texts: Sequence[str], patience: float | None, stopped: Callable[[], bool], failing: float | None = None
    ) -> Numbers:
        """A vector for each text, in their order, or None; `patience` and `failing` as for Conversation.post."""
        ...

    def count_tokens(self, texts: Sequence[str], stopped: Callable[[], bool]) -> list[int]:
        """At least as many as the model reads of each text, of as many texts as one request may have."""
        ...


def dialect_of(server: Server, talk: Conversation, model: str) -> Dialect:
    """What the server speaks: only the first of the two has /info."""
    try:
        info = talk.get("/info")
    except InputRefusedError:
        info = None
    if isinstance(info, dict) and "max_input_length" in info:
        return Inference(server, talk, info)
    return OpenAi(server, talk, model)


class Inference:
    """Text Embeddings Inference."""

    def __init__(self, server: Server, talk: Conversation, info: dict[str, Any]) -> None:
        self._talk = talk
        self.max_tokens = server.max_tokens or int(info["max_input_length"])
        self.revision = str(info.get("model_sha") or "")
        self.texts_per_request = int(info.get("max_client_batch_size") or TEXTS_PER_REQUEST)

    def embed(
        self, texts: Sequence[str], patience: float | None, stopped: Callable[[], bool], failing: float | None = None
    ) -> Numbers:
        """See Dialect."""
        body = {"inputs": list(texts), "normalize": False, "truncate": True}
        answer = self._talk.post("/embed", body, patience=patience, failing=failing, stopped=stopped)
        return _numbers(_rows(answer, len(texts)))

    def count_tokens(self, texts: Sequence[str], stopped: Callable[[], bool]) -> list[int]:
        """See Dialect."""
        found = self._talk.post("/tokenize", {"inputs": list(texts), "add_special_tokens": True}, stopped=stopped)
        return [len(tokens) for tokens in _rows(found, len(texts))]


class OpenAi:
    """A server with OpenAI's /embeddings below its address, which for most ends with /v1."""

    def __init__(self, server: Server, talk: Conversation, model: str) -> None:
        self._talk = talk
        self._model = model
        self.max_tokens = server.max_tokens or self._window()
        self.revision = ""
        self.texts_per_request = TEXTS_PER_REQUEST

    def embed(
        self, texts: Sequence[str], patience: float | None, stopped: Callable[[], bool], failing: float | None = None
    ) -> Numbers:
        """See Dialect."""
        body = {"model": self._model, "input": list(texts), "encoding_format": "float"}
        answer = self._talk.post("/embeddings", body, patience=patience, failing=failing, stopped=stopped)
        data = answer.get("data") if isinstance(answer, dict) else None
        rows = [row for row in _rows(data, len(texts)) if isinstance(row, dict) and isinstance(row.get("index"), int)]
        found = {row["index"]: row.get("embedding") for row in rows}
        if found.keys() != set(range(len(texts))):
            raise SystemicError(
                "embedder", "the embedding server does not say which vector is of which text: check its version"
            )
        return _numbers([found[index] for index in range(len(texts))])

    def count_tokens(self, texts: Sequence[str], stopped: Callable[[], bool]) -> list[int]:  # noqa: ARG002
        """See Dialect. No tokenizer makes more tokens of a text than it has bytes."""
        return [len(text.encode()) + _FRAME for text in texts]

    def _window(self) -> int:
        """How many tokens the model reads, which some servers say in their list of models."""
        answer = self._talk.get("/models")
        models = answer.get("data", []) if isinstance(answer, dict) else []
        said = [model["max_model_len"] for model in models if model.get("id") == self._model and model.get("max_model_len")]
        if not said:
            raise ConfigError(
                f"the embedding server does not say how many tokens the model {self._model!r} reads of a text: set "
                "LIVEDEX_EMBEDDER_MAX_TOKENS to it"
            )
        return int(said[0])


def _numbers(rows: list[Any]) -> Numbers:
    """The rows that are lists of numbers: JSON has no NaN, and of single texts a server may say null for it."""
    return [row if isinstance(row, list) and all(isinstance(number, int | float) for number in row) else None for row in rows]


def _rows(found: Any, count: int) -> list[Any]:
    if not isinstance(found, list) or len(found) != count:
        what = f"{len(found)} rows" if isinstance(found, list) else type(found).__name__
        raise SystemicError("embedder", f"the embedding server answers {what} to {count} texts: check LIVEDEX_EMBEDDER_URL")
    return found
