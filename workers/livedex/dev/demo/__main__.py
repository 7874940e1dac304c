"""Runs the demo: `python -m livedex.dev.demo [--keep] [--documents N]`. Whatever happens, no process is left behind."""

import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from livedex.dev.demo.corpus import documents
from livedex.dev.demo.story import Story
from livedex.dev.demo.system import System
from livedex.errors import InvariantError, LivedexError

DOCUMENTS = 48  # about 400 chunks: half a minute of embedding on two cores
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running, and say how to stop it.")] = False,
    count: Annotated[int, typer.Option("--documents", min=12, max=100, help="How many documents.")] = DOCUMENTS,
) -> None:
    """Show livedex at work on real parts: Kafka, Postgres, a model, and text that is on this machine."""
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)  # each of them as a KeyboardInterrupt
    console = Console(highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="livedex-demo-"))
    system = System(folder)
    started = time.perf_counter()
    done = False
    try:
        Story(system, documents(count), console).tell()
        if not keep:
            _end_workers(system, console)
        done = True
        console.print(f"\nDone in {time.perf_counter() - started:.0f} s.", style="bold")
    except KeyboardInterrupt:
        console.print("\ninterrupted", style="yellow")
    except Exception as error:  # noqa: BLE001 - whatever it was, a stranger gets the reason and the logs, and no process stays
        _explain(error, system, console)
    finally:
        if done and keep:
            _say_how_to_go_on(system, console)
        else:
            _clear_away(system)
    sys.exit(0 if done else 1)


def _end_workers(system: System, console: Console) -> None:
    """As an operator would; they must take it well."""
    started = time.perf_counter()
    ends = system.stop_workers()
    if any(ends.values()):
        raise InvariantError(f"expected: both workers end with 0 after SIGTERM, found {ends}")
    console.print(f"\nSIGTERM: both workers ended with 0 after {time.perf_counter() - started:.1f} s.")


def _clear_away(system: System) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # it takes seconds, and an impatient Ctrl-C would leave servers behind
    system.stop()
    shutil.rmtree(system.folder, ignore_errors=True)


def _explain(error: Exception, system: System, console: Console) -> None:
    for worker in system.workers.values():
        console.print(worker.tail(), markup=False, style="dim", soft_wrap=True)
    if not isinstance(error, LivedexError):
        console.print_exception()
    console.print(f"the demo failed: {error}", markup=False, style="bold red", soft_wrap=True)


def _say_how_to_go_on(system: System, console: Console) -> None:
    livedex = Path(sys.executable).with_name("livedex")
    index, serve = system.workers["index"], system.workers["serve"]
    for line in (
        "Everything is still running:",
        f"  pages    {serve.address}/docs",
        f"  metrics  {index.address}/metrics  {serve.address}/metrics",
        f"  data     {system.folder}",
        "Use it in this shell:",
        f'  eval "$({livedex} dev env --dir {system.folder})"; export LIVEDEX_HTTP_PORT={system.http_port}',
        f"  {livedex} search 'read a compressed file'",
        "Stop it:",
        f"  kill {index.process.pid} {serve.process.pid}; {livedex} dev down --dir {system.folder}",
    ):
        console.print(line, markup=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
