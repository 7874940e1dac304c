"""Makes an int8 copy of a converted model. A process of its own: `python -m livedex.encoders.quantising CONVERTED TARGET`.

Static: weights and activations are scaled once, by what the model makes of the texts of the calibration. Were each batch scaled
by itself, the vector of a text would depend on its company.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from livedex.encoders.conversion import FACTS, GRAPH, TOKENIZER

SAMPLES = 300  # texts of the calibration; more change the scales by little
_LONGEST = 1_500  # characters of a sample: a chunk is shorter


def samples() -> list[str]:
    """English prose, code and tables that every Python has: its own reference, in parts as long as chunks are."""
    from pydoc_data.topics import topics

    paragraphs = (part.strip() for name in sorted(topics) for part in re.split(r"\n{2,}", topics[name]))
    merged = _merged(part for part in paragraphs if part)
    found = list(merged)
    step = max(1, len(found) // SAMPLES)
    return found[::step][:SAMPLES]


def _merged(parts: Iterator[str]) -> Iterator[str]:
    """Parts joined to lengths that vary, up to _LONGEST characters."""
    text, limit = "", 50
    for part in parts:
        text = f"{text}\n\n{part}" if text else part
        if len(text) >= limit:
            yield text[:_LONGEST]
            text, limit = "", 50 + (limit * 7) % 900


def quantise(converted: Path, target: Path) -> None:
    """Write the int8 graph of `converted` into `target`, an existing folder. About 20 seconds."""
    import nncf
    import openvino
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(converted / TOKENIZER))
    tokenizer.enable_truncation(json.loads((converted / FACTS).read_text())["max_tokens"])

    def inputs(text: str) -> dict[str, np.ndarray]:
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    graph = openvino.Core().read_model(converted / GRAPH)
    calibration = nncf.Dataset(samples(), inputs)
    small = nncf.quantize(graph, calibration, model_type=nncf.ModelType.TRANSFORMER, subset_size=SAMPLES)
    openvino.save_model(small, target / GRAPH, compress_to_fp16=False)


if __name__ == "__main__":
    try:
        quantise(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:  # noqa: BLE001 - whatever a model makes of the libraries; the caller says it in one line
        sys.exit(f"{type(error).__name__}: {error}")
