"""The kinds of panels. Each has a title, a description that says what is worrying, a unit, and its queries.

A builder is of one panel; frame.py gives it its place and number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import common as parts
from grafana_foundation_sdk.builders import heatmap, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard, prometheus
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue, Threshold, ValueMap, ValueMappingResult

SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
GOOD, WARNING, BAD = "green", "orange", "red"
STAT_HEIGHT, GRAPH_HEIGHT = 4, 8  # rows of the grid

PanelBuilder = Builder[dashboard.Panel]
_Kind = TypeVar("_Kind", stat.Panel, timeseries.Panel, heatmap.Panel, statetimeline.Panel)


@dataclass(frozen=True, slots=True)
class Query:
    """An expression, and how its series are called; `{{label}}` stands for a label's value."""

    expression: str
    legend: str = "{{instance}}"
    exemplars: bool = False  # show the traces of single observations


@dataclass(frozen=True, slots=True)
class Limits:
    """From where a value is worrying, and from where it is bad; below those where `low` is true."""

    warning: float
    bad: float
    low: bool = False  # the lower, the worse: `bad` is less than `warning`

    def steps(self) -> list[Threshold]:
        """As Grafana has them, from the lowest."""
        if self.warning == self.bad:
            return [Threshold(None, BAD if self.low else GOOD), Threshold(self.bad, GOOD if self.low else BAD)]
        if self.low:
            return [Threshold(None, BAD), Threshold(self.bad, WARNING), Threshold(self.warning, GOOD)]
        return [Threshold(None, GOOD), Threshold(self.warning, WARNING), Threshold(self.bad, BAD)]


NONE = Limits(1, 1)  # one is bad already


def number(
    title: str, description: str, unit: str, query: str, *, limits: Limits | None = None, width: int = 4,
    decimals: int | None = None, texts: Mapping[str, tuple[str, str]] | None = None,
) -> PanelBuilder:  # fmt: skip
    """One number as it is now. `texts` are shown in place of a value, with a colour."""
    panel = _panel(stat.Panel(), title, description, unit, width, STAT_HEIGHT)
    panel.with_target(_target(Query(query, title), 0).instant())
    panel.graph_mode(common.BigValueGraphMode.NONE).reduce_options(parts.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.thresholds(_thresholds(limits))
    panel.color_mode(common.BigValueColorMode.VALUE if limits else common.BigValueColorMode.NONE)
    if decimals is not None:
        panel.decimals(decimals)
    if texts is not None:
        panel.mappings([_texts(texts)])
    return panel


def graph(
    title: str, description: str, unit: str, *queries: Query, limits: Limits | None = None, width: int = 8,
    stacked: bool = False, most: float | None = None, colours: Mapping[str, str] | None = None, steps: bool = False,
    signed: bool = False, empty: str | None = None,
) -> PanelBuilder:  # fmt: skip
    """Lines over time, from 0 where not `signed`. `most` is the end of the axis, `colours` are those of series by name, and
    `empty` is shown where there are no series.
    """
    panel = _panel(timeseries.Panel(), title, description, unit, width, GRAPH_HEIGHT)
    for place, query in enumerate(queries):
        panel.with_target(_target(query, place).range())
    panel.fill_opacity(30 if stacked else 8).line_width(1).show_points(common.VisibilityMode.NEVER)
    panel.legend(
        parts.VizLegendOptions().show_legend(True).display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM).calcs(["lastNotNull", "max"])
    )  # fmt: skip
    panel.tooltip(parts.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
    panel.thresholds(_thresholds(limits))
    if limits is not None:
        panel.thresholds_style(parts.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED))
    if stacked:
        panel.stacking(parts.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if steps:
        panel.line_interpolation(common.LineInterpolation.STEP_AFTER)
    if empty is not None:
        panel.no_value(empty)
    if not signed:
        panel.min(0)
    if most is not None:
        panel.max(most)
    for name, colour in (colours or {}).items():
        panel.override_by_name(name, [DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})])
    return panel


def heat(title: str, description: str, unit: str, buckets: str, *, width: int = 12) -> PanelBuilder:
    """A histogram over time. `buckets` is the rate of the `_bucket` series, summed by le."""
    panel = _panel(heatmap.Panel(), title, description, unit, width, GRAPH_HEIGHT)
    panel.with_target(_target(Query(buckets, "{{le}}", exemplars=True), 0).range().format(prometheus.PromQueryFormat.HEATMAP))
    panel.calculate(False).y_axis(heatmap.YAxisConfig().unit(unit))
    return panel


def timeline(
    title: str, description: str, query: Query, texts: Mapping[str, tuple[str, str]], *, width: int = 12
) -> PanelBuilder:
    """Bars of states over time. `texts` gives each value its name and colour."""
    panel = _panel(statetimeline.Panel(), title, description, "none", width, GRAPH_HEIGHT)
    panel.with_target(_target(query, 0).range()).mappings([_texts(texts)])
    panel.show_value(common.VisibilityMode.AUTO).row_height(0.8).merge_values(True)
    return panel


def _panel(panel: _Kind, title: str, description: str, unit: str, width: int, height: int) -> _Kind:
    return panel.title(title).description(description).unit(unit).span(width).height(height).datasource(SOURCE)


def _target(query: Query, place: int) -> Dataquery:
    made = Dataquery().datasource(SOURCE).ref_id(chr(ord("A") + place)).editor_mode(prometheus.QueryEditorMode.CODE)
    made.expr(query.expression).legend_format(query.legend)
    return made.exemplar(True) if query.exemplars else made


def _thresholds(limits: Limits | None) -> ThresholdsConfig:
    steps: Sequence[Threshold] = limits.steps() if limits else [Threshold(None, GOOD)]
    return ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(list(steps))


def _texts(texts: Mapping[str, tuple[str, str]]) -> ValueMap:
    results = enumerate(texts.items())
    return ValueMap({value: ValueMappingResult(text=text, color=colour, index=n) for n, (value, (text, colour)) in results})
