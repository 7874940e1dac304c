"""The whole real stream with the real model, as `make accept` runs it."""

import random
from collections import Counter

import numpy as np
import pytest

from livedex.config import DEFAULT_MODEL
from livedex.encoders import ModelSpec, open_encoder
from support.fold import fold
from support.index import assert_is_fold
from support.kafka import Log
from support.streams import rust_book
from support.waiting import until
from support.workers import Workers

pytestmark = [pytest.mark.accept, pytest.mark.model]

SAMPLE = 200  # vectors compared with the model's


def test_the_whole_stream_with_the_real_model_is_the_fold(workers: Workers, log: Log) -> None:
    """Every document, chunk and a sample of the vectors are what the log and the model say, and no chunk is over the limit."""
    events = rust_book()
    topic = log.topic(3)
    config = workers.config(topic)
    workers.apply(config, LIVEDEX_EMBEDDER="auto")
    worker = workers.start("index", config, LIVEDEX_EMBEDDER="auto")
    for event in events:
        log.post(topic, event)
    log.flush()
    records = log.records(topic)
    workers.caught_up(topic, Counter(record.partition for record in records), timeout=2400)
    with workers.connect() as connection:
        assert_is_fold(connection, fold(records, numbered_by="log"))
    until(lambda: worker.metrics().value("livedex_events_total") == len(records), what="every event to be counted")
    assert worker.stop() == 0

    encoder = open_encoder("torch", ModelSpec(model=DEFAULT_MODEL))
    rows = workers.rows("select c.text, e.embedding::text from livedex.chunk c join livedex.embedding_1 e using (chunk_key)")
    texts = [row[0] for row in rows]
    assert max(encoder.count_tokens(texts)) <= encoder.identity.max_tokens
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    sample = random.Random(seed).sample(rows, min(SAMPLE, len(rows)))
    stored = np.array([[float(number) for number in row[1].strip("[]").split(",")] for row in sample])
    cosines = (stored * encoder.encode_documents([row[0] for row in sample])).sum(axis=1)
    assert cosines == pytest.approx(1, abs=1e-3)
