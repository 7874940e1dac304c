"""Models converted for OpenVINO, kept in the user's cache: converting takes seconds and torch, reading takes neither."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from livedex import resources
from livedex.encoders.conversion import FACTS, GRAPH, REFERENCE, TOKENIZER, Facts
from livedex.encoders.port import Vectors
from livedex.errors import ConfigError
from livedex.observe import logger

VERSION = 1  # of what the conversion writes
_DECIDE = ("openvino", "sentence-transformers", "transformers", "torch")  # what the graph depends on beside the model

_log = logger("encoder")


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A folder that the conversion filled."""

    folder: Path

    @property
    def graph(self) -> Path:
        """The model from token ids to the vector."""
        return self.folder / GRAPH

    @property
    def tokenizer(self) -> Path:
        """Its tokenizer."""
        return self.folder / TOKENIZER

    @property
    def facts(self) -> Facts:
        """What the model says of itself."""
        return Facts(**json.loads((self.folder / FACTS).read_text()))

    @property
    def reference(self) -> Vectors:
        """The vectors that torch gives for the probe's texts, normalised."""
        vectors: Vectors = np.load(self.folder / REFERENCE)
        return vectors


def cache_dir() -> Path:
    """Where converted models are."""
    return resources.cache_dir() / "openvino"


def converted(model: Path, revision: str, *, by: str = "conversion") -> Converted:
    """The model in `model`, whose files have the digest `revision`, converted now unless it was before; `by` the module
    `conversion`, or `reranker_conversion` for a cross-encoder.

    ConfigError when it cannot be converted, or the cache cannot be written.
    """
    made_by = [f"{name} {importlib.metadata.version(name)}" for name in _DECIDE]
    kind = [] if by == "conversion" else [by]
    if by == "conversion":
        _check_kind(model)
    target = cache_dir() / sha256("\n".join([str(VERSION), revision, *made_by, *kind]).encode()).hexdigest()[:32]
    if not (target / REFERENCE).is_file():
        with _written():
            _make(by, model, target, REFERENCE)
    return Converted(folder=target)


def _check_kind(model: Path) -> None:
    """ConfigError for what the conversion would refuse after seconds: torch runs it. Whatever else is wrong is its to find."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        kind = json.loads((model / "modules.json").read_text())[0]["type"].rpartition(".")[2]
        if kind != "Transformer":
            raise ConfigError(
                f"the model in {model} begins with a {kind}, and openvino takes a Transformer: "
                'torch runs it, with precision = "auto"'
            )


def quantised(model: Converted) -> Path:
    """The int8 graph of a converted model, made now unless it was before. ConfigError when it cannot be made."""
    if not find_spec("nncf"):
        raise ConfigError("precision int8 needs nncf, which is not installed: pip install 'livedex[openvino]'")
    target = model.folder / f"int8-nncf-{importlib.metadata.version('nncf')}"
    if not (target / GRAPH).is_file():
        with _written():
            _make("quantising", model.folder, target, GRAPH)
    return target / GRAPH


@contextmanager
def _written() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"cannot write the cache {cache_dir()} ({error.strerror}): set XDG_CACHE_HOME to a folder") from error


def _make(module: str, source: Path, target: Path, last: str) -> None:
    """Run a module that fills a folder from another: aside first, then in one step into its place, so that who looks meanwhile
    sees all or nothing. `last` is a file that the folder has when it is whole.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix="draft-", dir=target.parent))
    _log.info(f"encoder.{module}", source=str(source))
    try:
        command = [sys.executable, "-m", f"livedex.encoders.{module}", str(source), str(draft)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)  # noqa: S603
        if done.returncode:
            why = next(reversed(done.stderr.strip().splitlines()), f"exit {done.returncode}")
            raise ConfigError(f"the model in {source} cannot be converted for openvino: {why}: set LIVEDEX_EMBEDDER=torch")
        try:
            draft.rename(target)
        except OSError:
            if not (target / last).is_file():  # not because another process was faster
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
