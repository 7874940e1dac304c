"""What the dashboards have in common: variables, annotations, links, places and numbers of panels, and the JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard

from livedex_dashboards.panels import SOURCE, PanelBuilder
from livedex_dashboards.queries import ALL, WINDOW, both

TAG = "livedex"  # by which the dashboards find each other
RUNBOOKS = "https://github.com/livedex/livedex/tree/main/ops/runbooks"


@dataclass(frozen=True, slots=True)
class Section:
    """A row of the dashboard with its panels, placed from left to right."""

    title: str
    panels: Sequence[PanelBuilder]


@dataclass(frozen=True, slots=True)
class Variable:
    """What the reader may choose: the values of a label of a metric; all of them when nothing is chosen."""

    name: str
    label: str  # what the reader sees
    values: str  # a query of Grafana's Prometheus source
    named: bool = True  # with all chosen, queries name each of them: metrics such as process_* are also those of others

    def builder(self) -> build.QueryVariable:
        """As Grafana has it."""
        made = build.QueryVariable(self.name).label(self.label).query(self.values).datasource(SOURCE)
        made.multi(True).include_all(True).current(dashboard.VariableOption(text=["All"], value=["$__all"]))
        if not self.named:
            made.all_value(ALL)
        return made.refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(dashboard.VariableSort.NATURAL_ASC)


WORKER = Variable("worker", "Index worker", f"label_values({both('livedex_inflight_bytes')}, instance)")
SERVER = Variable("server", "Query worker", f"label_values({both('livedex_search_waiting')}, instance)")
COLLECTION = Variable("collection", "Collection", f"label_values({both('livedex_active_generation')}, collection)", named=False)
TOPIC = Variable("topic", "Topic", f"label_values({both('livedex_staleness_seconds')}, topic)", named=False)
_JOB = Variable("job", "Job", 'label_values({__name__=~"livedex_build_info|livedex_canary_runs_total"}, job)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One dashboard: `name` is that of its file and of its address."""

    name: str
    title: str
    description: str
    variables: Sequence[Variable]
    sections: Sequence[Section]

    @property
    def uid(self) -> str:
        """Its address in Grafana, the same in every installation."""
        return f"livedex-{self.name}"

    def text(self) -> str:
        """The file."""
        return json.dumps(self.model(), cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"

    def model(self) -> dashboard.Dashboard:
        """As Grafana's library has it."""
        made = build.Dashboard(f"livedex / {self.title}").uid(self.uid).description(self.description)
        made.tags([TAG]).editable().refresh("30s").time("now-3h", "now").timezone("browser")
        made.tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        _choices(made, (_JOB, *self.variables))
        _events(made)
        made.link(
            _Shown("Dashboards").type(dashboard.DashboardLinkType.DASHBOARDS).tags([TAG]).include_vars(True).keep_time(True)
        )
        made.link(_Shown("Runbooks").type(dashboard.DashboardLinkType.LINK).url(RUNBOOKS).icon("doc").target_blank(True))
        for section in self.sections:
            made.with_row(build.Row(section.title))
            for panel in section.panels:
                made.with_panel(panel)
        built = made.build()
        _numbered(built)
        return built


class _Shown(build.DashboardLink):
    """A link above the panels; those that the library makes are in a menu."""

    def build(self) -> dashboard.DashboardLink:
        built = super().build()
        built.placement = None  # type: ignore[assignment]  # it is written where it is something, and may be nothing
        return built


class _Chosen(Builder[dashboard.VariableModel]):
    """A variable without what the library gives to all kinds of them, and Grafana knows of intervals only."""

    def __init__(self, inner: Builder[dashboard.VariableModel]) -> None:
        self._inner = inner

    def build(self) -> dashboard.VariableModel:
        """As Grafana has it."""
        built = self._inner.build()
        built.auto = built.auto_min = built.auto_count = None
        return built


def _choices(made: build.Dashboard, variables: Sequence[Variable]) -> None:
    source = build.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    made.with_variable(_Chosen(source))
    for variable in variables:
        made.with_variable(_Chosen(variable.builder()))


def _events(made: build.Dashboard) -> None:
    own = build.AnnotationQuery().name("Annotations & Alerts").type("dashboard").icon_color("rgba(0, 211, 255, 1)")
    made.annotation(_Marked(own.datasource(common.DataSourceRef("grafana", "-- Grafana --")).hide(True), built_in=1))
    switches = f"sum by (collection) (changes({both('livedex_active_generation')}[{WINDOW}])) > 0"
    made.annotation(_mark("Generation switches", "purple", switches, "generation switched", "{{collection}}"))
    known = both("livedex_build_info")
    versions = f"group by (job, version) ({known})"
    before = f"group by (job, version) (last_over_time({known}[1d] offset $__interval))"  # it may have been away for a while
    made.annotation(_mark("Deployments", "blue", f"{versions} unless {before}", "livedex {{version}}", "{{job}}"))
    starts = f"{both('process_start_time_seconds')} * 1000"  # the time itself: however long the worker was away
    made.annotation(_mark("Starts", "yellow", starts, "started", "{{job}} {{instance}}", at_value=True))


def _mark(name: str, colour: str, expression: str, title: str, text: str, *, at_value: bool = False) -> "_Marked":
    query = Dataquery().datasource(SOURCE).expr(expression).ref_id("Anno").range()
    marked = build.AnnotationQuery().name(name).enable(True).icon_color(colour).datasource(SOURCE).target(query)
    return _Marked(marked, title=title, text=text, at_value=at_value)


class _Marked(Builder[dashboard.AnnotationQuery]):
    """An annotation that can be switched off above the panels, with what its events say."""

    def __init__(
        self, inner: build.AnnotationQuery, *, title: str | None = None, text: str | None = None, built_in: int | None = None,
        at_value: bool = False,
    ) -> None:  # fmt: skip
        self._inner, self._title, self._text, self._built_in, self._at_value = inner, title, text, built_in, at_value

    def build(self) -> dashboard.AnnotationQuery:
        """As Grafana has it."""
        built = self._inner.build()
        built.title_format, built.text_format, built.built_in = self._title, self._text, self._built_in
        built.use_value_for_time = True if self._at_value else None  # milliseconds since 1970
        built.placement = None  # type: ignore[assignment]  # as for links
        return built


def _numbered(built: dashboard.Dashboard) -> None:
    for number, panel in enumerate(built.panels or (), 1):
        panel.id_val = number
