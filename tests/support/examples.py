"""The examples of docs/sql.md, as readers copy them."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "sql.md"


def examples(heading: str) -> list[str]:
    """The blocks of code below a heading."""
    text = DOCUMENT.read_text(encoding="utf-8")
    below = re.split(r"(?m)^##", text.partition(f"\n### {heading}\n")[2])[0]
    found: list[str] = re.findall(r"(?ms)^```\w+\n(.*?)^```$", below)
    assert found, f"{DOCUMENT.name} has no example below {heading}"
    return found


def example(heading: str) -> str:
    """The only block of code below a heading."""
    (found,) = examples(heading)
    return found


def dblink_setup(port: str, password: str) -> str:
    """What an operator runs in the database to set dblink up, with this port and password."""
    text = DOCUMENT.read_text(encoding="utf-8")
    (script,) = re.findall(r"(?ms)^   ```sql\n(   CREATE EXTENSION dblink.*?)^   ```$", text)
    for written, own in (("'8432'", f"'{port}'"), ("'the content of wire-password.txt'", f"'{password}'")):
        assert script.count(written) == 1
        script = script.replace(written, own)
    return str(script)
