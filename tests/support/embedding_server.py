"""A real embedding server on this machine, in either dialect, over any encoder; told how to behave while it runs."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from livedex.encoders import Encoder, ModelSpec
from livedex.encoders.hash import MAX_TOKENS, HashEncoder
from livedex.http_server import HttpServer, listen

MODEL = "hash-384"


@dataclass
class EmbeddingServer:
    """The server and what it saw."""

    encoder: Encoder = field(default_factory=lambda: HashEncoder(ModelSpec(model=MODEL)))
    status: int = 200  # of every answer but /info
    retry_after: str | None = None
    mark: str = ""  # a text with it is refused,
    marked: int = httpx.codes.UNPROCESSABLE_ENTITY  # with this status
    seconds: float = 0.0  # that an embedding takes
    token: str = ""  # that it wants
    batch: int = 8  # texts that it takes at a time
    answers: int = 0  # with a status of 200, to embeddings
    refusals: int = 0
    busiest: int = 0  # embeddings, or counts of tokens, at a time, at most
    address: str = ""
    _busy: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def embed(self, texts: list[str], authorization: str | None) -> JSONResponse | list[list[float]]:
        """Vectors, or the answer that it was told to give."""
        with self._lock:
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
        try:
            time.sleep(self.seconds)
            refusal = self._refusal(texts, authorization)
            if refusal is not None:
                self.refusals += 1
                headers = {"Retry-After": self.retry_after} if self.retry_after else {}
                return JSONResponse({"error": "told to", "error_type": "told"}, refusal, headers)
            self.answers += 1
            return [[float(number) for number in vector] for vector in self.encoder.encode_documents(texts)]
        finally:
            with self._lock:
                self._busy -= 1

    def tokenize(self, texts: list[str]) -> list[list[dict[str, int]]]:
        """As many tokens as the encoder counts."""
        with self._lock:
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
        try:
            time.sleep(self.seconds)
            return [[{"id": number} for number in range(count)] for count in self.encoder.count_tokens(texts)]
        finally:
            with self._lock:
                self._busy -= 1

    def _refusal(self, texts: list[str], authorization: str | None) -> int | None:
        if self.token and authorization != f"Bearer {self.token}":
            return httpx.codes.UNAUTHORIZED
        if len(texts) > self.batch:
            return httpx.codes.REQUEST_ENTITY_TOO_LARGE
        if self.mark and any(self.mark in text for text in texts):
            return self.marked
        return None if self.status == httpx.codes.OK else self.status

    def inference(self) -> FastAPI:
        """As Text Embeddings Inference."""
        app = FastAPI()

        @app.get("/info")
        def info() -> dict[str, Any]:
            return {"model_id": MODEL, "model_sha": None, "max_input_length": MAX_TOKENS, "max_client_batch_size": self.batch}

        @app.post("/embed")
        def embed(body: dict[str, Any], request: Request) -> Any:
            return self.embed(body["inputs"], request.headers.get("authorization"))

        @app.post("/tokenize")
        def tokenize(body: dict[str, Any]) -> Any:
            return self.tokenize(body["inputs"])

        return app

    def openai(self, *, says_window: bool = True) -> FastAPI:
        """As OpenAI's API below /v1."""
        app = FastAPI()
        self.batch = 1024

        @app.get("/v1/models")
        def models() -> dict[str, Any]:
            window = {"max_model_len": 4 * MAX_TOKENS} if says_window else {}
            return {"data": [{"id": MODEL, **window}]}

        @app.post("/v1/embeddings")
        def embeddings(body: dict[str, Any], request: Request) -> Any:
            assert body["model"] == MODEL
            found = self.embed(body["input"], request.headers.get("authorization"))
            if isinstance(found, JSONResponse):
                return found
            rows = [{"index": index, "embedding": vector} for index, vector in enumerate(found)]
            return {"data": rows[::-1]}  # in any order: the index says it

        return app

    @contextmanager
    def running(self, app: FastAPI, path: str = "") -> Iterator["EmbeddingServer"]:
        """The server while it answers."""
        server = HttpServer(app, listen("127.0.0.1", 0, "the test's port"))
        server.start()
        self.address = f"http://{server.address}{path}"
        try:
            yield self
        finally:
            server.stop()
