"""Real text that is on every machine: the documentation strings of the standard library, and the descriptions of the
packages that livedex uses. Source files are parsed, never imported.
"""

import ast
import json
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib import metadata
from itertools import islice
from pathlib import Path

SMALLEST = 600  # characters: shorter ones say too little
LARGEST = 7_000  # characters: longer ones end here, after a paragraph

# Those that the demo asks about come first, so that a small demo has them.
MODULES = (
    "difflib", "shlex", "heapq", "configparser", "statistics", "textwrap", "functools", "subprocess", "tempfile",
    "smtplib", "threading", "gzip", "json", "argparse", "asyncio.locks", "base64", "bisect", "calendar", "cmd",
    "collections", "colorsys", "contextlib", "copy", "csv", "dataclasses", "doctest", "email.message", "enum",
    "fileinput", "fnmatch", "fractions", "getpass", "glob", "graphlib", "hashlib", "hmac", "html.parser", "http.client",
    "http.cookies", "http.server", "imaplib", "inspect", "ipaddress", "locale", "logging", "mailbox", "mimetypes",
    "netrc", "os", "pathlib", "pdb", "pickle", "platform", "pprint", "queue", "random", "re", "sched", "secrets",
    "selectors", "shelve", "shutil", "socket", "socketserver", "sqlite3.dump", "ssl", "string", "tarfile", "timeit",
    "tokenize", "traceback", "turtle", "typing", "unittest.mock", "urllib.parse", "urllib.request", "uuid", "wave",
    "weakref", "webbrowser", "xml.etree.ElementTree", "zipfile",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document, with the fields of a change event."""

    id: str
    title: str
    text: str
    format: str  # markdown, text
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def event(self) -> bytes:
        """The upsert of this document, one line of JSON."""
        return json.dumps({"op": "upsert", **asdict(self)}, ensure_ascii=False).encode()


def documents(count: int) -> list[Document]:
    """At most `count` documents, the same ones in the same order on each run; one in four describes a package."""
    packages = list(islice(_packages(), count // 4))
    return [*islice(_modules(), count - len(packages)), *packages]


def _modules() -> Iterator[Document]:
    library = Path(sysconfig.get_path("stdlib"))
    for name in MODULES:
        text = _documentation(library, name)
        if len(text) >= SMALLEST:
            yield Document(id=f"python/{name}", title=name, text=_cut(text), format="markdown", metadata={"kind": "module"})


def _documentation(library: Path, name: str) -> str:
    """The documentation strings of a module as Markdown; empty where its source is not there."""
    place = library.joinpath(*name.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            module = ast.parse(path.read_bytes())
            return "\n\n".join([f"# {name}", *_sections(module, name)]) + "\n"
    return ""


def _sections(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Iterator[str]:
    documentation = ast.get_docstring(node)
    if documentation:
        yield documentation if isinstance(node, ast.Module) else f"## {name}\n\n{documentation}"
    for inner in node.body:
        if isinstance(inner, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
            yield from _sections(inner, f"{name}.{inner.name}")


def _packages() -> Iterator[Document]:
    for name in _used_by("livedex"):
        try:
            about = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            continue
        text = str(about.json.get("description", ""))
        kind = "markdown" if "markdown" in (about["Description-Content-Type"] or "") else "text"
        if len(text) >= SMALLEST:
            yield Document(id=f"package/{name}", title=name, text=_cut(text), format=kind, metadata={"kind": "package"})


def _used_by(package: str) -> list[str]:
    try:
        requirements = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return []
    return sorted({re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower() for requirement in requirements})


def _cut(text: str) -> str:
    """The beginning of the text, up to the end of a paragraph."""
    if len(text) <= LARGEST:
        return text
    end = text.rfind("\n\n", 0, LARGEST)
    return text[: end + 2] if end > 0 else text[:LARGEST]
