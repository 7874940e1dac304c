"""Models converted for OpenVINO, kept in the user's cache: converting takes seconds and torch, reading takes neither."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

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
    """Where converted models are: below `livedex` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "livedex" / "openvino"


def converted(model: Path, revision: str) -> Converted:
    """The model in `model`, whose files have the digest `revision`, converted now unless it was before.

    ConfigError when it cannot be converted, or the cache cannot be written.
    """
    made_by = [f"{name} {importlib.metadata.version(name)}" for name in _DECIDE]
    target = cache_dir() / sha256("\n".join([str(VERSION), revision, *made_by]).encode()).hexdigest()[:32]
    if not (target / REFERENCE).is_file():
        try:
            _convert(model, target)
        except OSError as error:
            raise ConfigError(
                f"cannot write the cache {cache_dir()} ({error.strerror}): set XDG_CACHE_HOME to a folder"
            ) from error
    return Converted(folder=target)


def _convert(model: Path, target: Path) -> None:
    """Aside first, then in one step into its place: who looks meanwhile sees all or nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix="draft-", dir=target.parent))
    _log.info("encoder.converting", model=str(model))
    try:
        command = [sys.executable, "-m", "livedex.encoders.conversion", str(model), str(draft)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)  # noqa: S603
        if done.returncode:
            why = next(reversed(done.stderr.strip().splitlines()), f"exit {done.returncode}")
            raise ConfigError(f"the model in {model} cannot be converted for openvino: {why}: set LIVEDEX_EMBEDDER=torch")
        try:
            draft.rename(target)
        except OSError:
            if not (target / REFERENCE).is_file():  # not because another process was faster
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
