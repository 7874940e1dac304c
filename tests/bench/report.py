"""Writes the figures: a table on the terminal, Markdown, JSON and a plot in bench-results/."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.figures import Figure
from bench.plot import plot

RESULTS = Path(__file__).parents[2] / "bench-results"
COLUMNS = ("figure", "measured", "aim", "", "made of")


def conditions(*, events: str) -> dict[str, Any]:
    """Under which the figures were made."""
    said = _processor()
    return {
        "processor": said["model name"],
        "cores": len(os.sched_getaffinity(0)),
        "bf16": "yes" if {"avx512_bf16", "amx_bf16"}.intersection(said["flags"].split()) else "no",
        "python": platform.python_version(),
        "events": events,
    }


def merged(found: Sequence[Figure], before: Sequence[Figure], order: Sequence[str]) -> list[Figure]:
    """What was found now, with the figures of an earlier run for the parts that were left out; parts in `order`."""
    new = {figure.part for figure in found}
    figures = [*found, *(figure for figure in before if figure.part not in new and figure.part in order)]
    return sorted(figures, key=lambda figure: order.index(figure.part))


def show(console: Console, figures: Sequence[Figure]) -> None:
    """A table for people."""
    table = Table(*COLUMNS, title="livedex bench", box=None)
    for figure in figures:
        colour = {None: "", True: "green", False: "red"}[figure.met]
        verdict = f"[{colour}]{figure.verdict}[/]" if colour else ""
        table.add_row(figure.name, figure.measured, figure.wanted, verdict, figure.made_of)
    console.print(table)


def write(figures: Sequence[Figure], made: dict[str, Any], folder: Path = RESULTS) -> None:
    """All three files."""
    folder.mkdir(exist_ok=True)
    (folder / "bench.md").write_text(markdown(figures, made))
    content = {"conditions": made, "figures": [{**asdict(figure), "met": figure.met} for figure in figures]}
    (folder / "bench.json").write_text(json.dumps(content, indent=1) + "\n")
    plot(figures, folder / "bench.svg")


def markdown(figures: Sequence[Figure], made: dict[str, Any]) -> str:
    """The table as Markdown, below a line that says how it was made."""
    said = ", ".join(f"{name} {value}" for name, value in made.items())
    rows = (f"| {f.name} | {f.measured} | {f.wanted} | {f.verdict} | {f.made_of} |" for f in figures)
    head = "| figure | measured | aim | | made of |\n|---|---|---|---|---|"
    return "\n".join([f"{said}.", "", head, *rows]) + "\n"


def read(folder: Path = RESULTS) -> list[Figure]:
    """The figures that were written last; none where none were."""
    file = folder / "bench.json"
    if not file.is_file():
        return []
    fields = Figure.__dataclass_fields__
    found = json.loads(file.read_text())["figures"]
    return [Figure(**{name: value for name, value in figure.items() if name in fields}) for figure in found]


def _processor() -> dict[str, str]:
    """What Linux says of the first one."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()]
    return {"model name": platform.machine(), "flags": "", **{name.strip(): value.strip() for name, _, value in lines}}
