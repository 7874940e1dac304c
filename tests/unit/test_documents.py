"""The documents say what the code does: names in them exist, and what users need is named."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from typer.main import get_command

from livedex.canary_metrics import CanaryMetrics
from livedex.cli.app import app
from livedex.config import _FROM_ENVIRONMENT, PREFIX
from livedex.core.change import Reason
from livedex.observe import IndexMetrics, QueryMetrics

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("schema/*.md")])
README = (ROOT / "README.md").read_text()
METRICS = (ROOT / "docs" / "metrics.md").read_text()


def _metrics(registry: CollectorRegistry) -> set[str]:
    """Names as a scrape shows them, without those of the process."""
    return {
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in registry.collect()
        if metric.name.startswith("livedex_")
    }


def test_the_reference_names_the_metrics_that_there_are() -> None:
    """Each metric of both workers and of the canary is in docs/metrics.md, and no other; the README names no other either."""
    index = IndexMetrics()
    CanaryMetrics(index.registry)
    there = _metrics(index.registry) | _metrics(QueryMetrics().registry)
    assert set(re.findall(r"`(livedex_\w+)`", METRICS)) == there
    roles = {"livedex_owner", "livedex_indexer", "livedex_query", "livedex_search"}
    assert set(re.findall(r"`(livedex_\w+)`", README)) <= there | roles


def test_readme_names_the_variables_that_there_are() -> None:
    """Each variable of the environment that does something is in the README, and no other."""
    there = {f"{PREFIX}{name}" for name in _FROM_ENVIRONMENT}
    assert set(re.findall(r"LIVEDEX_[A-Z_]+[A-Z]", README)) == there


def test_readme_names_every_reason_of_a_dead_letter() -> None:
    """Whoever looks for a reason finds it."""
    assert {reason for reason in Reason if f"`{reason}`" not in README} == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_documents_name_commands_and_files_that_exist(path: Path) -> None:
    """Every command in a code line or a code span exists, and every link leads somewhere."""
    commands = get_command(app).commands  # type: ignore[attr-defined]
    text = path.read_text().replace("`livedex grant`", "")  # said to come later
    code = "\n".join(re.findall(r"(?s)```.*?```|`[^`\n]+`", text))
    for command in re.findall(r"(?m)(?:^`?|\(|bin/)livedex ([a-z][a-z-]+)", code):
        assert command in commands, f"{path.name} names livedex {command}"
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"
