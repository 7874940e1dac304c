"""Real text that is on every machine where the tests run: the documentation strings of installed Python packages."""

import re
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path

SHORTEST = 100  # characters
QUESTION = re.compile(r"[A-Z][\w ,'-]{25,110}\.")  # a first line that can be asked for
_STRING = re.compile(r'^( *)[rR]?"""(.+?)"""', re.DOTALL | re.MULTILINE)
_LEFT_OUT = {"tests", "test", "testing", "_vendor"}


def docstrings() -> Iterator[tuple[str, str]]:
    """(name, documentation string), file by file."""
    folder = Path(sysconfig.get_paths()["purelib"])
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).parts
        if _LEFT_OUT.intersection(parts):
            continue
        source = path.read_text(encoding="utf-8", errors="replace")
        for number, found in enumerate(_STRING.finditer(source)):
            string = textwrap.dedent(found[1] + found[2]).strip()
            if len(string) >= SHORTEST:
                yield f"{'/'.join(parts)}#{number}", string.replace("\0", "")
