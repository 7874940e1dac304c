"""The rules of ops/prometheus: each is tested both ways by promtool, each alert has its runbook, and thresholds are edges."""

import copy
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Histogram
from prometheus_client.metrics import MetricWrapperBase

from livedex.observe import IndexMetrics, QueryMetrics
from support import rules
from support.prometheus import program, promtool
from support.rules import PROMETHEUS, RULES, RUNBOOKS, TESTS, Content, Rule

RUNBOOK_URL = "https://github.com/livedex/livedex/blob/main/ops/runbooks/{}.md"
SECTIONS = ["## What it means", "## How to look", "## What to do"]
LATER = ("livedex_canary_",)  # of commands that have a registry of their own


def by_title(of: list[Rule]) -> list[Any]:
    """Rules as parameters."""
    return [pytest.param(rule, id=rule.title.replace(" ", "-")) for rule in of]


def run(folder: Path, rule: Rule, change: Callable[[Content], None] = lambda _: None) -> "tuple[bool, str]":
    """Test a rule, changed or as it is, with those that it reads; whether it passes, and what promtool says."""
    changed = copy.deepcopy(rule.content)
    change(changed)
    kept = [(each.group, each.content) for each in rules.read_by(rule)] + [(rule.group, changed)]
    groups = [{"name": f"{number} {group}", "rules": [content]} for number, (group, content) in enumerate(kept)]
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    tests = []
    for number, (path, found) in enumerate(asked_about(rule).items()):
        order = [group["name"] for group in groups]
        interval = rules.load(path)["evaluation_interval"]
        content = {"rule_files": ["rules.yml"], "evaluation_interval": interval, "group_eval_order": order, "tests": found}
        tests.append(folder / f"{number}.test.yml")
        tests[-1].write_text(yaml.safe_dump(content))
    done = promtool("test", "rules", *tests, cwd=folder)
    return done.returncode == 0, done.stdout + done.stderr


def asked_about(rule: Rule) -> Mapping[Path, list[Content]]:
    """What is asked about a rule, by file. Where several alerts have its name, only this one is expected."""
    found: dict[Path, list[Content]] = {}
    for path in TESTS:
        for test in rules.load(path)["tests"]:
            asked = [_of_one(question, rule) for question in test["promql_expr_test"] if _asks(question, rule)]
            if asked:
                found.setdefault(path, []).append({**test, "promql_expr_test": asked})
    return found


def _asks(question: Content, rule: Rule) -> bool:
    return f'alertname="{rule.name}"' in question["expr"] if "alert" in rule.content else question["expr"] == rule.name


def _of_one(question: Content, rule: Rule) -> Content:
    burn = rule.labels.get("burn")
    samples = [each for each in question["exp_samples"] if burn is None or f'burn="{burn}"' in each["labels"]]
    return {**question, "exp_samples": samples}


@pytest.mark.parametrize("rule", by_title(list(rules.rules())))
def test_a_rule_passes_its_tests(rule: Rule, tmp_path: Path) -> None:
    """An alert fires when it should and is silent when it should not; what is recorded is right."""
    assert asked_about(rule), f"{rule.title} has no tests in {[path.name for path in TESTS]}"
    passes, said = run(tmp_path, rule)
    assert passes, said


@pytest.mark.accept
@pytest.mark.parametrize("rule", by_title(rules.alerts()))
def test_an_alert_is_tested_both_ways(rule: Rule, tmp_path: Path) -> None:
    """The tests of an alert fail for one that never fires, one that always does, and one that does not wait."""
    for change in ({"expr": "vector(1) > 1"}, {"expr": "vector(1)"}, {"for": "0s"}):
        if change.keys() <= rule.content.keys():
            passes, _ = run(tmp_path, rule, lambda content: content.update(change))  # noqa: B023
            assert not passes, f"the tests of {rule.title} pass with {change}"


@pytest.mark.accept
@pytest.mark.parametrize("rule", by_title(rules.records()))
def test_a_record_is_tested_both_ways(rule: Rule, tmp_path: Path) -> None:
    """The tests of what is recorded fail where it is always 0, always 1, and missing."""
    for other in ("0 * ({})", "1 + 0 * ({})", "({}) > 1e9"):
        passes, _ = run(tmp_path, rule, lambda content: content.update(expr=other.format(content["expr"])))  # noqa: B023
        assert not passes, f"the tests of {rule.name} pass with {other}"


def test_every_alert_has_a_runbook() -> None:
    """Each alert names its runbook, each runbook has its alert, and says what it means, how to look and what to do."""
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {rule.name for rule in rules.alerts()}
    for rule in rules.alerts():
        annotations = rule.content["annotations"]
        assert annotations["runbook_url"] == RUNBOOK_URL.format(rule.name)
        assert annotations.keys() == {"summary", "description", "runbook_url"}
        assert rule.labels["severity"] in ("page", "ticket")
        text = (RUNBOOKS / f"{rule.name}.md").read_text(encoding="utf-8")
        assert text.startswith(f"# {rule.name}\n")
        assert [line for line in text.splitlines() if line.startswith("## ")] == SECTIONS, rule.name
        assert "```" in text, f"{rule.name} says no command or query"


def test_the_documentation_lists_every_alert() -> None:
    """docs/alerts.md names every alert, and no other."""
    text = (PROMETHEUS.parents[1] / "docs" / "alerts.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(Livedex\w+)`", text)) == {rule.name for rule in rules.alerts()}


def test_thresholds_are_edges_of_buckets() -> None:
    """A bucket that a rule asks for is there: a query for another one is silently empty."""
    found = 0
    for rule in rules.records():
        for name, edge in re.findall(r'(\w+)_bucket\{le="([^"]+)"\}', rule.content["expr"]):
            histogram = registered()[name]
            assert isinstance(histogram, Histogram)
            edges = [str(float(edge)) for edge in histogram._kwargs["buckets"]]
            assert edge in edges, f"{rule.name} asks for {edge}, {name} has {edges}"
            found += 1
    assert found > 10


def test_metrics_and_labels_are_there() -> None:
    """Each metric that a rule reads is one that a worker serves, and each label it selects by is one of that metric's."""
    known = registered()
    for rule in rules.rules():
        expression = re.sub(r'"[^"]*"', '""', rule.content["expr"])
        for name, _, selector in re.findall(r"\b(livedex_[a-z_]+?)(_bucket|_count|_total)?\b(\{[^}]*\})?", expression):
            if name.startswith(LATER):
                continue
            assert name in known, f"{rule.name} reads {name}, which no worker has"
            selected = set(re.findall(r"(\w+)=", selector)) - {"le"}
            assert selected <= set(known[name]._labelnames), f"{rule.name} selects {name} by {selected}"


def registered() -> dict[str, MetricWrapperBase]:
    """The metrics of both workers, by name without the ending of a counter."""
    found = [value for made in (IndexMetrics(), QueryMetrics()) for value in vars(made).values()]
    return {metric._name: metric for metric in found if isinstance(metric, MetricWrapperBase)}


def test_durations_can_be_divided() -> None:
    """Rules and routes can be made faster by a factor: every duration is divided, names and edges of buckets are not."""
    record = {"record": "late:rate5m", "expr": 'rate(x_bucket{le="30.0"}[5m]) > 5 * 60', "for": "1m"}
    content: Content = {
        "groups": [{"interval": "1h", "rules": [record]}],
        "route": {"group_wait": "30s", "repeat_interval": "1d"},
    }
    assert rules.faster(content, 10) == {
        "groups": [
            {
                "interval": "360000ms",
                "rules": [{"record": "late:rate5m", "expr": 'rate(x_bucket{le="30.0"}[30000ms]) > 30', "for": "6000ms"}],
            }
        ],
        "route": {"group_wait": "3000ms", "repeat_interval": "8640000ms"},
    }
    assert content["route"]["group_wait"] == "30s", "what was given must not change"
    for rule in rules.rules():
        left = rules.faster(rule.content, 15)
        assert not re.search(r"\[\d+[smhd]\]|\d \* (60|3600)", left["expr"]), f"{rule.name} keeps a duration: {left['expr']}"


@pytest.mark.parametrize("severity", ["page", "ticket"])
def test_alerts_are_routed(severity: str) -> None:
    """Alertmanager sends pages to the pager, and tickets to where tickets are kept."""
    config = PROMETHEUS / "alertmanager.example.yml"
    command = [program("amtool"), "config", "routes", "test", f"--config.file={config}", f"severity={severity}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == [{"page": "pager", "ticket": "tickets"}[severity]], done.stderr


def test_inhibitions_name_alerts() -> None:
    """What inhibits and what is inhibited are alerts that there are, and labels that these have."""
    known = {rule.name for rule in rules.alerts()}
    burns = {rule.labels["burn"] for rule in rules.alerts() if "burn" in rule.labels}
    for inhibition in rules.load(PROMETHEUS / "alertmanager.example.yml")["inhibit_rules"]:
        for matcher in [*inhibition["source_matchers"], *inhibition["target_matchers"]]:
            label, _, wanted = re.fullmatch(r'(\w+)(=~?)"([^"]+)"', matcher).groups()  # type: ignore[union-attr]
            values = {"alertname": known, "burn": burns, "job": {"livedex-index", "livedex-serve"}}[label]
            assert set(wanted.split("|")) <= values, f"{matcher} names what is not there"


def test_configurations_are_taken() -> None:
    """Prometheus and Alertmanager take the examples, and the rules among them."""
    done = promtool("check", "config", "prometheus.example.yml", cwd=PROMETHEUS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(rules.load(PROMETHEUS / "prometheus.example.yml")["rule_files"]) == len(RULES)
    command = [program("amtool"), "check-config", str(PROMETHEUS / "alertmanager.example.yml")]
    taken = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert taken.returncode == 0, taken.stdout + taken.stderr
