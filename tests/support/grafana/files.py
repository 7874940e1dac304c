"""The committed dashboards, and all queries in them."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OPS = Path(__file__).parents[3] / "ops"
FOLDER = OPS / "grafana" / "dashboards"
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
Json = dict[str, Any]


def committed() -> dict[str, Json]:
    """Every dashboard by the name of its file."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def panels(dashboard: Json) -> list[Json]:
    """Its panels without the rows' titles."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One query of a dashboard."""

    place: str  # dashboard / panel / letter
    expression: str  # with variables
    instant: bool
    at_value: bool = False  # an event is not where a point is, but at the time that it has as its value, in milliseconds


def panel_queries(name: str, dashboard: Json) -> Iterator[Asked]:
    """What its panels ask."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            place = f"{name} / {panel['title']} / {target['refId']}"
            yield Asked(place, target["expr"], target["instant"])


def annotation_queries(name: str, dashboard: Json) -> Iterator[Asked]:
    """What its annotations ask of Prometheus."""
    for annotation in dashboard["annotations"]["list"]:
        if not annotation.get("builtIn"):
            yield Asked(
                f"{name} / {annotation['name']}", annotation["target"]["expr"], False, annotation.get("useValueForTime", False)
            )


def variables(dashboard: Json) -> dict[str, Json]:
    """Its variables that Prometheus has the values of, by name, in their order."""
    return {each["name"]: each for each in dashboard["templating"]["list"] if each["type"] == "query"}


def names_in(text: str) -> set[str]:
    """The variables that a text uses, those of Grafana itself included."""
    return {braced or plain for braced, plain in VARIABLE.findall(text)}


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with the variables' values; KeyError for an unknown one."""
    return VARIABLE.sub(lambda found: values[found[1] or found[2]], text)


def all_of(values: list[str]) -> str:
    """What Grafana writes into PromQL when all values are chosen and the variable has no text of its own for that."""
    escaped = [re.sub(r"([\\^$*+?.()|{}\[\]/])", r"\\\\\1", value) for value in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"
