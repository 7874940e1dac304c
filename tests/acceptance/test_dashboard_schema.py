"""The dashboards are what Grafana's own types, of its package @grafana/schema, say that a dashboard is."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from support.grafana.files import Json, committed, panels
from support.grafana.types import Types

pytestmark = pytest.mark.accept


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> Types:
    """The compiler."""
    return Types(tmp_path_factory.mktemp("grafana"))


def test_the_files_are_dashboards_of_grafana(types: Types) -> None:
    """Every name and value in them is one that Grafana's types have, to the options of each kind of panel."""
    assert types.errors(committed()) == []


def _misspelt(dashboard: Json) -> None:
    dashboard["timeZone"] = dashboard.pop("timezone")


def _no_such_style(dashboard: Json) -> None:
    graph = next(panel for panel in panels(dashboard) if panel["type"] == "timeseries")
    graph["fieldConfig"]["defaults"]["custom"]["showPoints"] = "seldom"


def _no_such_option(dashboard: Json) -> None:
    number = next(panel for panel in panels(dashboard) if panel["type"] == "stat")
    number["options"]["graphmode"] = "none"


def _text_for_a_number(dashboard: Json) -> None:
    panels(dashboard)[0]["gridPos"]["x"] = "0"


def _no_query(dashboard: Json) -> None:
    del panels(dashboard)[0]["targets"][0]["expr"]


@pytest.mark.parametrize("spoil", [_misspelt, _no_such_style, _no_such_option, _text_for_a_number, _no_query])
def test_what_is_no_dashboard_is_told(spoil: Callable[[Json], None], tmp_path: Path) -> None:
    """The check finds a misspelt name, a value that Grafana does not know, a wrong type, and what is missing."""
    dashboard = copy.deepcopy(committed()["slo"])
    spoil(dashboard)
    assert Types(tmp_path).errors({"spoilt": dashboard})
