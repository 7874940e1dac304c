"""Real models of every kind through the whole system: found as well as sentence-transformers finds by comparing all, across
languages, and better still with words and a cross-encoder.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import real_models
from livedex.core.quality import DEPTH, Quality, quality
from real_models import BGE, BI_ENCODERS, E5, MINILM, RERANKER, RealModel
from support.judged import Judged, first_lines, translations
from support.kafka import Log
from support.workers import Workers

pytestmark = pytest.mark.accept
DOCUMENTS, QUESTIONS = 900, 200
EXACT = 2000  # chunks up to which livedex.search_vector compares all
NEAR = 0.005  # of nDCG@10, to the library's own search


class Site:
    """A collection with one of the models, filled, and a query worker."""

    def __init__(
        self, workers: Workers, log: Log, model: RealModel, judged: Judged, *, reranker: str = "", text_config: str = "english"
    ) -> None:
        self.folder, self.judged, self.workers = real_models.folder_of(model), judged, workers
        topic = log.topic()
        self.config = workers.config(topic, model=str(self.folder), context="none", reranker=reranker, text_config=text_config)
        workers.apply(self.config, LIVEDEX_EMBEDDER="auto")
        index = workers.start("index", self.config, LIVEDEX_EMBEDDER="auto")
        places = [log.post(topic, {"id": name, "text": text}) for name, text in judged.documents.items()]
        log.flush()
        workers.caught_up(topic, {0: len(places)}, timeout=600)
        assert index.stop() == 0  # the machine is for the searches
        (chunks,) = workers.rows("select count(*) from livedex.document_chunk")[0]
        assert chunks <= EXACT, "of more an index may answer"
        self.serve = workers.start("serve", self.config, LIVEDEX_EMBEDDER="auto")

    def evaluate(self, folder: Path, *options: str) -> list[dict[str, Any]]:
        """What `livedex evaluate` finds."""
        queries, qrels = self.judged.write(folder)
        command = ("evaluate", "--queries", str(queries), "--qrels", str(qrels), "-k", str(DEPTH), "--json", *options)
        port = self.serve.address.rpartition(":")[2]
        done = self.workers.run(*command, config=self.config, timeout=900, LIVEDEX_HTTP_PORT=port, LIVEDEX_EMBEDDER="auto")
        assert done.returncode == 0, done.stderr
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows

    def by_the_library(self) -> Quality:
        """The same questions answered by sentence-transformers, which compares all of the very chunks; the best counts."""
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(self.folder), device="cpu", local_files_only=True)
        chunks = self.workers.rows("select document_id, text from livedex.chunks")
        names = np.array([name for name, _ in chunks])
        vectors = model.encode_document([text for _, text in chunks], show_progress_bar=False)
        asked = model.encode_query(list(self.judged.questions.values()), show_progress_bar=False)
        ranked = {
            name: list(dict.fromkeys(names[np.argsort(-(vectors @ vector), kind="stable")]))[:DEPTH]
            for name, vector in zip(self.judged.questions, asked, strict=True)
        }
        return quality(ranked, {name: dict.fromkeys(found, 1) for name, found in self.judged.answers.items()}, depth=DEPTH)


@pytest.mark.parametrize("model", BI_ENCODERS, ids=lambda model: model.name)
def test_each_model_finds_what_its_library_finds(workers: Workers, log: Log, tmp_path: Path, model: RealModel) -> None:
    """By meaning as well as sentence-transformers with all chunks compared; by meaning and words, judged by a cross-encoder,
    better than by meaning alone.
    """
    site = Site(workers, log, model, first_lines(DOCUMENTS, QUESTIONS), reranker=str(real_models.folder_of(RERANKER)))
    library = site.by_the_library()
    found = {row["mode"]: row for row in site.evaluate(tmp_path)}
    _, found["reranked"] = site.evaluate(tmp_path, "--mode", "hybrid", "--rerank")
    _tell(model, site.judged, {"library": library.ndcg, **{name: row["ndcg"] for name, row in found.items()}})
    assert found["vector"]["ndcg"] == pytest.approx(library.ndcg, abs=NEAR)
    assert found["hybrid"]["ndcg"] >= found["vector"]["ndcg"], "words take nothing away"
    assert found["reranked"]["ndcg"] > found["vector"]["ndcg"]


def test_questions_find_their_answers_in_other_languages(workers: Workers, log: Log, tmp_path: Path) -> None:
    """With the multilingual model an English message finds its translations, of which the words say nothing."""
    site = Site(workers, log, E5, translations(), text_config="simple")
    library = site.by_the_library()
    found = {row["mode"]: row for row in site.evaluate(tmp_path)}
    _tell(E5, site.judged, {"library": library.ndcg, **{name: row["ndcg"] for name, row in found.items()}})
    assert found["vector"]["ndcg"] == pytest.approx(library.ndcg, abs=NEAR)
    assert found["vector"]["mrr"] > 0.9
    assert found["vector"]["ndcg"] > found["text"]["ndcg"]


def _tell(model: RealModel, judged: Judged, found: dict[str, float]) -> None:
    figures = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    print(f"{model.name}: nDCG@{DEPTH} {figures}; {len(judged.questions)} questions to {len(judged.documents)} documents")  # noqa: T201


def test_the_two_sides_of_an_asymmetric_model_differ() -> None:
    """Else nothing above could tell them apart."""
    from sentence_transformers import SentenceTransformer

    for model, differ in ((BGE, True), (E5, True), (MINILM, False)):
        library = SentenceTransformer(str(real_models.folder_of(model)), device="cpu", local_files_only=True)
        cosine = float(library.encode_query("a question") @ library.encode_document("a question"))
        assert (cosine < 0.99) is differ, model.name
