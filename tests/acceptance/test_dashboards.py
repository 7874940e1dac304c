"""Every query of every dashboard has data in a real Prometheus, after all that dashboards are made for has happened."""

import math
import time
from collections.abc import Iterator, Mapping

import pytest

from livedex.dev.stack import Addresses
from support.grafana.files import (
    VARIABLE,
    Asked,
    Json,
    all_of,
    annotation_queries,
    committed,
    filled,
    panel_queries,
    panels,
    variables,
)
from support.grafana.scene import Scene, played
from support.prometheus import Prometheus, QueryError
from support.waiting import until

pytestmark = pytest.mark.accept
DASHBOARDS = committed()
STEP = 1  # seconds between points, as between scrapes
RATES = 8  # seconds: Grafana takes four scrapes and more
ANSWERS = 30  # seconds within which what is asked for as it is now must have a value: a batch may be under way
LONGEST = 10 * 24 * 3600.0  # seconds: a panel of times that has more shows a date
each = pytest.mark.parametrize("name", DASHBOARDS)


@pytest.fixture(scope="module")
def scene(stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Played once for all dashboards."""
    with played(stack, template, tmp_path_factory.mktemp("dashboards")) as going_on:
        yield going_on


def chosen(scene: Scene, dashboard: Json) -> dict[str, str]:
    """The variables with all of their values, as Grafana fills them in; those of Grafana itself too."""
    length = math.ceil(time.time() - scene.began)
    values = {"__interval": f"{STEP}s", "__rate_interval": f"{RATES}s", "__range": f"{length}s"}
    for name, variable in variables(dashboard).items():
        found = label_values(scene.prometheus, filled(variable["query"], values))
        assert found, f"the variable {name} has no values: {variable['query']}"
        values[name] = variable.get("allValue") or all_of(found)
    return values


def label_values(prometheus: Prometheus, query: str) -> list[str]:
    """The values that Grafana offers for `label_values(series, label)`."""
    series, label = query.removeprefix("label_values(").removesuffix(")").rsplit(",", 1)
    found: list[str] = prometheus.get(f"label/{label.strip()}/values", **{"match[]": series})
    return found


def values_of(scene: Scene, asked: Asked, values: Mapping[str, str]) -> list[float]:
    """The numbers that a panel shows; without NaN, which it does not show."""
    expression = filled(asked.expression, values)
    try:
        if asked.instant:
            numbers = [sample.value for sample in scene.prometheus.query(expression)]
        else:
            seconds = time.time() - scene.began
            lines = scene.prometheus.range(expression, seconds=seconds, step=STEP)
            numbers = [value for line in lines for _, value in line.points]
    except QueryError as error:
        raise AssertionError(f"{asked.place} is refused: {error}") from error
    return [number for number in numbers if not math.isnan(number)]


@each
def test_every_panel_has_data(scene: Scene, name: str) -> None:
    """Each query of each panel answers with a number, some of what they are about is not 0, and units are what they say."""
    dashboard = DASHBOARDS[name]
    values = chosen(scene, dashboard)
    units = {panel["title"]: panel["fieldConfig"]["defaults"]["unit"] for panel in panels(dashboard)}
    empty = []
    for asked in panel_queries(name, dashboard):
        found = values_of(scene, asked, values)
        if not found and asked.instant:
            found = _soon(scene, asked, values)
        if not found:
            empty.append(f"{asked.place}: {asked.expression}")
            continue
        title = asked.place.split(" / ")[1]
        if units[title] == "percentunit":
            assert max(found) <= 1.05, f"{asked.place} shows {max(found):.0%}"
        if units[title] == "s":
            assert max(found) < LONGEST, f"{asked.place} shows {max(found)} s"
            assert min(found) > -1, f"{asked.place} shows {min(found)} s"
    assert not empty, "\n".join(empty)


def _soon(scene: Scene, asked: Asked, values: Mapping[str, str]) -> list[float]:
    try:
        return until(lambda: values_of(scene, asked, values), timeout=ANSWERS, what=asked.place)
    except AssertionError:
        return []


@each
def test_every_annotation_has_events(scene: Scene, name: str) -> None:
    """The switch of the generation, the deployment and the start that happened are marked."""
    values = chosen(scene, DASHBOARDS[name])
    for asked in annotation_queries(name, DASHBOARDS[name]):
        found = values_of(scene, asked, values)
        events = (
            [value for value in found if value / 1000 > scene.began] if asked.at_value else [value for value in found if value]
        )
        assert events, f"{asked.place} marks nothing: {asked.expression}"


def test_one_value_of_each_variable_can_be_chosen(scene: Scene) -> None:
    """With one index worker, query worker, collection and topic chosen, panels show less, and still something."""
    for name, dashboard in DASHBOARDS.items():
        values = chosen(scene, dashboard)
        for variable, made in variables(dashboard).items():
            if variable != "job":
                found = label_values(scene.prometheus, filled(made["query"], values))
                one = {**values, variable: all_of(found[:1])}
                uses = [asked for asked in panel_queries(name, dashboard) if _uses(asked, variable)]
                assert any(values_of(scene, asked, one) for asked in uses), f"{name}: nothing for one {variable}"


def _uses(asked: Asked, variable: str) -> bool:
    return any(variable in found for found in VARIABLE.findall(asked.expression))
