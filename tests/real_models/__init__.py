"""Real models of every kind, made of weights that Python packages ship: for the long checks and the benchmark suite.

`python -m real_models` in tests/ makes them and says where they are. All but all-MiniLM-L6-v2 are expansions of quantised
weights to float32 and not the files of the hub: a figure that is measured with one says so. Nothing is trained, and no code of
the packages runs.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from livedex.encoders.models import find_model
from livedex.resources import cache_dir
from real_models import bert, e5

VERSION = 1  # of what is written


@dataclass(frozen=True, slots=True, kw_only=True)
class RealModel:
    """A model as people use it."""

    name: str
    kind: str
    weights: str  # what they are, for reports
    make: Callable[[Path], None] | None = None  # None: a package ships it as it is


MINILM = RealModel(name="all-MiniLM-L6-v2", kind="symmetric bi-encoder", weights="float32, as published")
BGE = RealModel(
    name="bge-small-en-v1.5", kind="asymmetric bi-encoder", weights="expanded from int8, by channel", make=bert.make_bi_encoder
)
E5 = RealModel(
    name="multilingual-e5-small", kind="asymmetric, multilingual bi-encoder", weights="expanded from 4 bits", make=e5.make
)
RERANKER = RealModel(
    name="ms-marco-MiniLM-L12-v2", kind="cross-encoder", weights="expanded from int8, by tensor", make=bert.make_cross_encoder
)
BI_ENCODERS = (MINILM, BGE, E5)
ALL = (*BI_ENCODERS, RERANKER)


def folder_of(model: RealModel) -> Path:
    """Where the model is; made now unless it was before, which downloads its weights: 70 to 90 MB."""
    if model.make is None:
        return find_model(model.name)
    target = cache_dir() / "real-models" / str(VERSION) / model.name
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix="draft-", dir=target.parent))
        try:
            model.make(draft)
            draft.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was faster
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return target
