"""Every kind of bi-encoder: each side is encoded by its own means, as sentence-transformers does it, up to the database."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from livedex import apply
from livedex.config import EmbedderName, Settings
from livedex.database import connect
from livedex.encoders import ModelSpec, open_encoder
from livedex.encoders.port import normalised
from support import tiny_models
from support.kafka import Log
from support.workers import Workers

pytestmark = pytest.mark.model
TEXTS = ["a short text", "words of another, longer one", "x"]
UNKNOWN = "字 ж 字字"  # no letter of it is in the vocabulary
PROMPTS = {"query": "find: ", "document": "read: "}


def asymmetric(folder: Path) -> Path:
    """One model, and a prompt for each side."""
    return tiny_models.symmetric(folder, prompts=PROMPTS)


KINDS: list[Callable[[Path], Path]] = [asymmetric, tiny_models.two_models, tiny_models.static]


@pytest.fixture(scope="module", params=KINDS, ids=["prompts", "two models", "static"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose sides differ."""
    made: Path = request.param(tmp_path_factory.mktemp("model") / "tiny")
    return made


def reference(folder: Path) -> Any:
    """The same model as its library runs it."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def close(found: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    """Whether these are the same unit vectors, row by row, as far as bfloat16 tells."""
    return bool((found * expected).sum(axis=1).min() > 0.999)


@pytest.mark.parametrize("embedder", ["torch", "auto"])
def test_each_side_is_encoded_by_its_own_means(folder: Path, embedder: EmbedderName) -> None:
    """Questions as the library encodes questions, documents as it encodes documents, and the two are not the same."""
    encoder, library = open_encoder(embedder, ModelSpec(model=str(folder))), reference(folder)
    questions, documents = encoder.encode_queries(TEXTS), encoder.encode_documents(TEXTS)
    assert close(questions, library.encode_query(TEXTS))
    assert close(documents, library.encode_document(TEXTS))
    assert not close(questions, documents)
    counted = encoder.count_tokens(TEXTS)
    assert counted[1] > counted[0] > counted[2]
    assert np.isfinite(encoder.encode_documents([UNKNOWN])).all(), "a language that the model does not know has vectors too"


@pytest.mark.parametrize("make", [KINDS[0], *(pytest.param(make, marks=pytest.mark.accept) for make in KINDS[1:])])
def test_what_is_stored_and_what_is_asked_are_never_swapped(
    make: Callable[[Path], Path], workers: Workers, log: Log, tmp_path: Path
) -> None:
    """The index worker stores what the library gives for a document, and searches compare it with what it gives for a question:
    the score is their cosine, over HTTP, and in SQL.
    """
    folder, topic = make(tmp_path / "tiny"), log.topic()
    config = workers.config(topic, model=str(folder), context="none")
    workers.apply(config, LIVEDEX_EMBEDDER="auto")
    places = [log.send(topic, {"id": str(number), "text": text}) for number, text in enumerate(TEXTS)]
    workers.start("index", config, LIVEDEX_EMBEDDER="auto")
    workers.caught_up(topic, {0: places[-1].offset + 1})
    serve = workers.start("serve", config, LIVEDEX_EMBEDDER="auto")
    library, asked = reference(folder), "which of these texts"
    (question,), documents = library.encode_query([asked]), library.encode_document(TEXTS)
    expected = {str(number): float(vector @ question) for number, vector in enumerate(documents)}
    answer = httpx.post(f"{serve.address}/v1/search", json={"query": asked, "mode": "vector"}, trust_env=False, timeout=20)
    over_http = {row["document_id"]: row["score"] for row in answer.json()["results"]}
    assert over_http == pytest.approx(expected, abs=0.01)
    with psycopg.connect(workers.database_url, autocommit=True) as connection:
        in_sql: dict[str, float] = dict(
            connection.execute("select document_id, score from livedex.search(%s, mode => 'vector')", (asked,)).fetchall()
        )
    assert in_sql == pytest.approx(expected, abs=0.01)
    swapped = {str(number): float(vector @ library.encode_document([asked])[0]) for number, vector in enumerate(documents)}
    assert over_http != pytest.approx(swapped, abs=0.01), "the sides must differ for this to say anything"


@pytest.mark.parametrize("embedder", ["torch", "openvino"])
def test_vectors_are_cut_to_their_first_numbers(tmp_path: Path, embedder: EmbedderName) -> None:
    """As sentence-transformers truncates: cut first, then normalised."""
    model = str(asymmetric(tmp_path / "tiny"))
    cut = open_encoder(embedder, ModelSpec(model=model, dimension=8))
    assert cut.identity.dimension == 8
    library = reference(Path(model))
    assert close(cut.encode_documents(TEXTS), library.encode_document(TEXTS, truncate_dim=8, normalize_embeddings=True))
    assert close(cut.encode_queries(TEXTS), normalised(library.encode_query(TEXTS)[:, :8]))
    assert open_encoder(embedder, ModelSpec(model=model, dimension=33)).identity.dimension == 32, "it has no more"


@pytest.mark.parametrize(
    ("metric", "unit", "warned"), [("dot", False, True), ("l2", False, True), ("cosine", False, False), ("dot", True, False)]
)
def test_a_metric_that_goes_by_lengths_is_warned_of(
    workers: Workers, tmp_path: Path, metric: str, unit: bool, warned: bool
) -> None:
    """Where the model's vectors differ in length; it is done all the same."""
    model = tiny_models.symmetric(tmp_path / "tiny", normalised=unit)
    collection: Any = {"model": str(model), "metric": metric}
    settings = Settings(database_url=workers.database_url, embedder="torch", collections={"docs": collection}, sources={})
    with connect(workers.database_url) as connection:
        steps = [step.say for step in apply.plan(settings, connection, topics=False)]
        apply.run(apply.plan(settings, connection, topics=False))
        again = apply.plan(settings, connection, topics=False)
    warnings = [say for say in steps if say.startswith(f"warning: metric {metric} of collection docs goes by the lengths")]
    assert bool(warnings) is warned
    assert steps[-1].startswith("create collection docs")
    assert again == []
