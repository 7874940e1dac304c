"""The dashboards' files: written by the code, complete, and about metrics that exist."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from livedex import observe
from livedex.canary_metrics import CanaryMetrics
from livedex.observe import IndexMetrics, QueryMetrics
from livedex_dashboards import objectives
from livedex_dashboards.boards import boards, write
from support.grafana.files import (
    FOLDER,
    OPS,
    Json,
    annotation_queries,
    committed,
    names_in,
    panel_queries,
    panels,
    variables,
)

DASHBOARDS = committed()
WIDTH = 24  # columns of the grid
BUILT_IN = {"__rate_interval", "__range", "__interval"}  # variables of Grafana itself
NOT_OURS = {"up", "ALERTS"}  # series that Prometheus makes
UNITS = {value for name, value in vars(units).items() if name[0].isupper()}
METRIC = re.compile(r"\b((?:livedex|process|python)[a-z0-9_:]+|up|ALERTS)\b(?=[{\[])")
RULES = yaml.safe_load((OPS / "prometheus" / "livedex.rules.yml").read_text(encoding="utf-8"))
each = pytest.mark.parametrize("name", DASHBOARDS)


def test_the_files_are_what_the_code_writes(tmp_path: Path) -> None:
    """`make dashboards` changes nothing, and there is no file that it does not write."""
    (tmp_path / "of-before.json").write_text("{}")
    write(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        path.name: path.read_text() for path in FOLDER.iterdir()
    }


def test_there_is_one_for_each_concern() -> None:
    """Service levels, stages, Kafka, encoder, Postgres and index, search, dead letters, canary."""
    expected = {"slo", "pipeline", "kafka", "encoder", "postgres", "search", "dead-letters", "canary"}
    assert DASHBOARDS.keys() == expected == {board.name for board in boards()}
    assert len({dashboard["uid"] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)


@each
def test_grafanas_library_reads_all_of_it(name: str) -> None:
    """What Grafana's library decodes from a file, panel options and queries included, is all that is in the file."""
    register_default_plugins()
    decoded = Dashboard.from_json(DASHBOARDS[name])
    assert list(_lost(DASHBOARDS[name], json.loads(json.dumps(decoded, cls=JSONEncoder)))) == []


def test_what_grafanas_library_does_not_know_is_told() -> None:
    """The comparison finds a name that the library lost, at any depth."""
    assert list(_lost({"a": [{"b": 1, "c": 2}], "d": 3}, {"a": [{"b": 1, "e": 4}], "d": 3})) == ["a.0.c"]


def _lost(written: Any, read: Any, place: str = "") -> Iterator[str]:
    """Where something written was not read, or otherwise; the library adds defaults of its own."""
    if isinstance(written, dict) and isinstance(read, dict):
        for name, value in written.items():
            yield from _lost(value, read.get(name), f"{place}{name}.")
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for number, pair in enumerate(zip(written, read, strict=True)):
            yield from _lost(*pair, f"{place}{number}.")
    elif written != read:
        yield place.removesuffix(".")


@each
def test_panels_are_complete(name: str) -> None:
    """Each panel has a title of its own in its dashboard, says what is worrying, and has a unit, thresholds and queries."""
    for panel in panels(DASHBOARDS[name]):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"] in UNITS, panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        letters = [target["refId"] for target in panel["targets"]]
        assert letters
        assert len(set(letters)) == len(letters)
        if panel["type"] in ("stat", "timeseries"):
            steps = [step["value"] for step in defaults["thresholds"]["steps"]]
            assert steps[0] is None
            assert steps[1:] == sorted(set(steps[1:])), f"{panel['title']}: thresholds must rise"


@each
def test_titles_and_numbers_are_unique(name: str) -> None:
    """A panel is found by its title within its row, and by its number in links."""
    everything = DASHBOARDS[name]["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    row, seen = "", set()
    for panel in everything:
        row = panel["title"] if panel["type"] == "row" else row
        assert (row, panel["title"], panel["type"]) not in seen
        seen.add((row, panel["title"], panel["type"]))


@each
def test_panels_lie_side_by_side(name: str) -> None:
    """No panel covers another, none is outside the grid, and no line of it has a gap at its end."""
    places = [panel["gridPos"] for panel in DASHBOARDS[name]["panels"]]
    assert all(place["x"] + place["w"] <= WIDTH for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
    for top in {place["y"] for place in places}:
        assert sum(place["w"] for place in places if place["y"] == top) == WIDTH, f"the line at {top} is not full"


@each
def test_variables_are_there_and_used(name: str) -> None:
    """Queries use no variable that the dashboard does not have, and it has none that nothing uses."""
    dashboard = DASHBOARDS[name]
    queries = [*panel_queries(name, dashboard), *annotation_queries(name, dashboard)]
    used = set().union(*(names_in(query.expression) for query in queries)) - BUILT_IN
    known = variables(dashboard)
    assert used == known.keys()
    before = {"datasource"}
    for variable, made in known.items():
        assert names_in(made["query"]) <= before, f"{variable} is made of variables that come later"
        before.add(variable)
    assert dashboard["templating"]["list"][0]["name"] == "datasource"


@each
def test_all_workers_are_named(name: str) -> None:
    """With all jobs or workers chosen, queries name each: `.+` would take the processes of others that Prometheus scrapes."""
    chosen = variables(DASHBOARDS[name])
    assert {each for each, made in chosen.items() if made.get("allValue")} <= {"collection", "topic"}
    for query in panel_queries(name, DASHBOARDS[name]):
        of_all = 'job=~"$job"' in query.expression or "ALERTS{" in query.expression
        assert of_all, f"{query.place} asks for the series of other jobs too"


def _metrics() -> set[str]:
    """Every name of a series that a worker serves."""
    index, query = IndexMetrics(), QueryMetrics()
    CanaryMetrics(index.registry)
    families = [family for registry in (index.registry, query.registry) for family in registry.collect()]
    return {series for family in families for series in _series(family)}


def _series(family: Any) -> set[str]:
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",), "info": ("_info",)}
    return {family.name + suffix for suffix in suffixes[family.type]}


def test_queries_are_about_what_there_is() -> None:
    """Every series in a query is served by a worker, recorded by a rule, or made by Prometheus itself."""
    recorded = {rule["record"] for group in RULES["groups"] for rule in group["rules"]}
    known = _metrics() | recorded | NOT_OURS
    for name, dashboard in DASHBOARDS.items():
        for query in (*panel_queries(name, dashboard), *annotation_queries(name, dashboard)):
            asked = set(METRIC.findall(query.expression))
            assert asked, f"{query.place} asks for nothing: {query.expression}"
            assert asked <= known, f"{query.place} asks for {sorted(asked - known)}"


def test_objectives_are_those_of_the_rules() -> None:
    """The dashboards judge by the thresholds of the recording rules, and these are edges of buckets."""
    rules = {rule["record"]: rule["expr"] for group in RULES["groups"] for rule in group["rules"]}
    assert f'le="{objectives.FRESH_WITHIN}"' in rules["livedex:freshness_late:ratio_rate5m"]
    assert f'le="{objectives.FAST_WITHIN}"' in rules["livedex:search_slow:ratio_rate5m"]
    assert objectives.FAULTS in rules["livedex:search_failed:ratio_rate5m"]
    assert float(objectives.FRESH_WITHIN) in observe.FRESHNESS_BUCKETS
    assert float(objectives.FAST_WITHIN) in observe.WORK_BUCKETS


def test_dashboards_lead_to_each_other() -> None:
    """Each has the links to all of them, with what was chosen, and to the runbooks."""
    for dashboard in DASHBOARDS.values():
        others, runbooks = dashboard["links"]
        assert (others["type"], others["tags"], others["includeVars"], others["keepTime"]) == (
            "dashboards",
            ["livedex"],
            True,
            True,
        )
        assert dashboard["tags"] == ["livedex"]
        assert runbooks["url"].endswith("/ops/runbooks")


def test_events_are_marked_everywhere() -> None:
    """Switches of generations, deployments and starts are lines in every graph."""
    for dashboard in DASHBOARDS.values():
        names = [event["name"] for event in dashboard["annotations"]["list"]]
        assert names == ["Annotations & Alerts", "Generation switches", "Deployments", "Starts"]


def provisioned(part: str) -> Json:
    """The only file that Grafana takes this from."""
    (path,) = (OPS / "grafana" / "provisioning" / part).glob("*.yaml")
    content: Json = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert content["apiVersion"] == 1
    return content


def test_grafana_is_given_the_source_and_the_dashboards() -> None:
    """The provisioning names one Prometheus, and one folder of dashboards."""
    (source,) = provisioned("datasources")["datasources"]
    assert (source["type"], source["access"], source["isDefault"]) == ("prometheus", "proxy", True)
    (provider,) = provisioned("dashboards")["providers"]
    assert (provider["type"], provider["allowUiUpdates"]) == ("file", False)
    assert provider["options"]["path"].startswith("/")
