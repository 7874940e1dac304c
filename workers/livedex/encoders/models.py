"""Where a model is: a folder, an installed package that ships it, or the hub, in that order; and the digest of its files.

A name of the hub may have a revision behind an @: a branch, a tag or a commit.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from livedex.errors import ConfigError

_MARKS = ("modules.json", "config_sentence_transformers.json")  # what a sentence-transformers folder has, a bi-encoder's
_CONFIG = "config.json"  # what a cross-encoder's has
_JUDGES = ("ForSequenceClassification", "ForCausalLM")  # architectures that have learned to judge end so
_NO_PART_OF_THE_MODEL = {".git", ".cache", "onnx", "openvino", "__pycache__"}
_OTHER_WEIGHTS = (".h5", ".ot", ".msgpack")  # the same, for other libraries
_NOT_NEEDED = ["onnx/*", "openvino/*", *(f"*{ending}" for ending in _OTHER_WEIGHTS)]  # of what the hub has
_NO_PART_ENDINGS = {".md", ".py", ".pyc", ".gitattributes", *_OTHER_WEIGHTS}


def find_model(name: str, *, marks: Sequence[str] = _MARKS) -> Path:
    """The folder of the model `name`, which has one of the files `marks`; ConfigError that says which places were tried."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not _has(folder, marks):
            raise ConfigError(f"the folder {folder} holds no sentence-transformers model: {marks[0]} is missing")
        return folder
    packaged = None if "@" in name else _in_packages(name, marks)  # a package has one revision, whatever its name
    return packaged or _from_hub(name)


def find_reranker(name: str) -> Path:
    """The folder of the cross-encoder `name`; ConfigError where it is none, or not there. A bi-encoder would be given a head
    that was never trained, and judge by chance.
    """
    folder = find_model(name, marks=(_CONFIG,))
    try:
        architectures = json.loads((folder / _CONFIG).read_text(encoding="utf-8")).get("architectures") or []
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"the folder {folder} holds no reranker: {_CONFIG} is no JSON object ({error})") from error
    if architectures and not any(str(each).endswith(_JUDGES) for each in architectures):
        raise ConfigError(
            f"the model {name!r} is no reranker: its architecture is {', '.join(map(str, architectures))}, one that ends in "
            f"{' or '.join(_JUDGES)} was expected. Name a cross-encoder"
        )
    return folder


def digest_of(folder: Path) -> str:
    """sha256 over names and contents of the files that shape the vectors, as hexadecimal digits."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if _counts(path.relative_to(folder)) and path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        whole.update(path.relative_to(folder).as_posix().encode() + b"\0" + content)
    return whole.hexdigest()


def _counts(path: Path) -> bool:
    return (
        not _NO_PART_OF_THE_MODEL.intersection(path.parts)
        and path.suffix not in _NO_PART_ENDINGS
        and (not path.name.startswith("."))
    )


def _has(folder: Path, marks: Sequence[str]) -> bool:
    return any((folder / mark).is_file() for mark in marks)


def _in_packages(name: str, marks: Sequence[str]) -> Path | None:
    """The model folder inside an installed distribution whose name ends with the model's."""
    wanted = _normal(name.rsplit("/", 1)[-1])
    for distribution in metadata.distributions():
        title = _normal(distribution.metadata["Name"] or "")
        if not (title == wanted or title.endswith(f"-{wanted}")):
            continue
        for file in distribution.files or ():
            folder = Path(str(distribution.locate_file(file))).parent
            if file.name == marks[0] and _has(folder, marks):
                return folder
    return None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    plain, _, revision = name.partition("@")
    repository = plain if "/" in plain else f"sentence-transformers/{plain}"
    try:
        found = snapshot_download(repository, revision=revision or None, ignore_patterns=_NOT_NEEDED)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"the model {name!r} was not found: it is no folder, no installed package ships it (a package whose name ends with "
            f"{_normal(plain.rsplit('/', 1)[-1])!r}), and the hub did not give {repository}: {reason}. "
            "Give a folder, install a package that ships it, or connect this machine to the hub"
        ) from error
    return Path(found)
