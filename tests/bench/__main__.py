"""`make bench`: measures the parts, prints what was found, and writes Markdown, JSON and a plot to bench-results/.

    make bench                                   everything: about an hour on two cores
    make bench BENCH="--only encode,chunks"      some parts; the figures of the others stay as they were
    make bench BENCH="--quick"                   a tenth of events and repetitions

Absolute times belong to the machine; the ratios are what to compare.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

os.environ["HF_HUB_OFFLINE"] = "1"

from rich.console import Console

from bench import (
    part_apply,
    part_ask,
    part_chunks,
    part_encode,
    part_live,
    part_load,
    part_metrics,
    part_quality,
    part_replay,
    part_rerank,
    part_rows,
    part_scale,
    part_search,
    part_sizes,
    part_stream,
    part_trace,
    part_workers,
    report,
)  # fmt: skip
from bench.events import load
from bench.figures import Figure
from bench.scene import Scene, running

QUICK = 0.1
MEMORY = "memory"
# In this order: the first ones need nothing, the others use what those before them have loaded.
PARTS: Mapping[str, Callable[[Scene], Iterator[Figure]]] = {
    module.PART: module.measure
    for module in (
        part_encode,
        part_chunks,
        part_quality,
        part_rows,
        part_metrics,
        part_apply,
        part_scale,
        part_load,
        part_stream,
        part_live,
        part_search,
        part_ask,
        part_rerank,
        part_replay,
        part_trace,
        part_workers,
        part_sizes,
    )
}

EARLIER = report.read()

console = Console(width=180)


def main() -> None:
    """Measure, print, write after each part."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the stack goes too
    chosen = _arguments()
    events = load(chosen.share)
    found: list[Figure] = []
    with running(events, chosen.naive_every) as scene:
        for part in chosen.only:
            console.print(f"[bold]{part}[/]")
            for figure in PARTS[part](scene):
                found.append(replace(figure, share=chosen.share))
                console.print(f"  {figure.name}: {figure.measured}  {figure.wanted} {figure.verdict}  ({figure.detail})")
            _write(found, events.name)
        scene.close()
        found += [replace(figure, share=chosen.share) for figure in _memory(scene)]
    report.show(console, found)
    _write(found, events.name)


def _write(found: Sequence[Figure], events: str) -> None:
    figures = report.merged(found, EARLIER, [*PARTS, MEMORY])
    report.write(figures, report.conditions(events=events))


def _memory(scene: Scene) -> Iterator[Figure]:
    for name, peak in scene.peaks.items():
        aim = 1.5 if name == "index" else None
        yield Figure(
            part=MEMORY, name=f"resident memory of {name}, peak", value=peak / 2**30, unit="GB", aim=aim, better="less"
        )  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", type=_parts, default=list(PARTS), help=f"parts, separated by commas: {', '.join(PARTS)}")
    parser.add_argument("--quick", dest="share", action="store_const", const=QUICK, default=1.0, help="a tenth of everything")
    parser.add_argument("--share", type=float, help="this share of everything, above 0 and at most 1")
    parser.add_argument(
        "--naive-every", type=int, default=1, metavar="N",
        help="let the naive pipeline do one of N changes of the stream; its time is then that for the chunks of all",
    )  # fmt: skip
    return parser.parse_args()


def _parts(text: str) -> list[str]:
    wanted = text.split(",")
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: no such part, there are {', '.join(PARTS)}")
    return [name for name in PARTS if name in wanted]


if __name__ == "__main__":
    main()
