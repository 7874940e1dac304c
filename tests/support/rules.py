"""The rules of ops/prometheus: read, cut down to some, and made faster for tests that wait for them."""

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

PROMETHEUS = Path(__file__).parents[2] / "ops" / "prometheus"
RUNBOOKS = PROMETHEUS.parent / "runbooks"
RULES = sorted(PROMETHEUS.glob("livedex.*.yml"))
TESTS = sorted((PROMETHEUS / "tests").glob("*.test.yml"))
Content = dict[str, Any]  # of a YAML file

_TIMES = frozenset(
    ["for", "interval", "group_wait", "group_interval", "repeat_interval", "scrape_interval", "evaluation_interval"]
)
_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")
_RANGE = re.compile(r"(?<=\[)\d+(?:ms|s|m|h|d)(?=\])")
_SECONDS = re.compile(r"\b(\d+) \* (60|3600)\b")  # how rules write seconds that a gauge is compared with


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a group of a file."""

    file: str
    group: str
    content: Content

    @property
    def name(self) -> str:
        """Of the alert, or of what is recorded."""
        return str(self.content.get("alert") or self.content["record"])

    @property
    def title(self) -> str:
        """The name, with the burn rate where several alerts have it."""
        return " ".join([self.name, *filter(None, [self.labels.get("burn")])])

    @property
    def labels(self) -> Mapping[str, str]:
        """That it adds."""
        labels: dict[str, str] = self.content.get("labels", {})
        return labels


@cache
def load(path: Path) -> Content:
    """A YAML file, which nobody changes: it takes a second to read them all."""
    content: Content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def rules() -> Iterator[Rule]:
    """All of them."""
    for path in RULES:
        for group in load(path)["groups"]:
            for rule in group["rules"]:
                yield Rule(path.name, group["name"], rule)


def alerts() -> list[Rule]:
    """Those that raise alerts."""
    return [rule for rule in rules() if "alert" in rule.content]


def records() -> list[Rule]:
    """Those that record."""
    return [rule for rule in rules() if "record" in rule.content]


def read_by(rule: Rule) -> list[Rule]:
    """What is recorded and read by a rule."""
    return [record for record in records() if record.name in rule.content["expr"]]


def faster(content: Content, factor: float) -> Content:
    """The same rules, or configuration of either server, with every duration divided: `for`, windows, intervals, and seconds
    that are written as a product with 60 or 3600. Edges of buckets stay as they are.
    """
    return {name: _faster(name, value, factor) for name, value in copy.deepcopy(content).items()}


def _faster(name: str, value: Any, factor: float) -> Any:
    if isinstance(value, dict):
        return faster(value, factor)
    if isinstance(value, list):
        return [_faster(name, each, factor) for each in value]
    if name in _TIMES:
        return _shorter(value, factor)
    if name == "expr":
        shorter = _RANGE.sub(lambda found: _shorter(found[0], factor), value)
        return _SECONDS.sub(lambda found: f"{int(found[1]) * int(found[2]) / factor:g}", shorter)
    return value


def _shorter(duration: str, factor: float) -> str:
    parts = _DURATION.findall(duration)
    assert parts, f"{duration} is no duration"
    return f"{round(sum(int(number) * _MILLISECONDS[unit] for number, unit in parts) / factor)}ms"
