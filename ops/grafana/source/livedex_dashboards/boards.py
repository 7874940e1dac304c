"""All dashboards, and their files."""

from collections.abc import Sequence
from pathlib import Path

from livedex_dashboards import canary, dead_letters, encoder, kafka, pipeline, postgres, search, slo
from livedex_dashboards.frame import Board

FOLDER = Path(__file__).parents[2] / "dashboards"


def boards() -> Sequence[Board]:
    """Every dashboard, newly made."""
    return [module.board() for module in (slo, pipeline, kafka, encoder, postgres, search, dead_letters, canary)]


def write(folder: Path = FOLDER) -> list[Path]:
    """Write the files of all dashboards, and remove those of dashboards that are no more; what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / f"{board.name}.json": board.text() for board in boards()}
    for path in set(folder.glob("*.json")) - files.keys():
        path.unlink()
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return list(files)
