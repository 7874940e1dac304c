// What a dashboard's JSON must be, by Grafana's own types. JSON has the values of enumerations where the types have their names,
// and the types leave open what panels and sources add: those that we use are closed here, so that a misspelt name is an error.
import type {
  AnnotationQuery, Dashboard, DataQuery, DataSourceRef, FieldConfig, FieldConfigSource, Panel, RowPanel, VariableModel,
} from '@grafana/schema';
import type * as heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as states from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as series from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

type Plain<T> = unknown extends T ? T
  : T extends string ? `${T}`
  : T extends number | boolean | null | undefined ? T
  : { [Name in keyof T]: Plain<T[Name]> };

interface PrometheusQuery extends DataQuery {
  expr: string;
  editorMode?: 'code' | 'builder';
  exemplar?: boolean;
  format?: 'time_series' | 'table' | 'heatmap';
  instant?: boolean;
  legendFormat?: string;
  range?: boolean;
}

interface Kind<Type extends string, Options, Custom> extends Omit<Panel, 'type' | 'options' | 'fieldConfig' | 'targets'> {
  type: Type;
  title: string;
  description: string;
  datasource: DataSourceRef;
  options: Options;
  targets: PrometheusQuery[];
  fieldConfig: Omit<FieldConfigSource, 'defaults'> & { defaults: Omit<FieldConfig, 'custom'> & { unit: string; custom?: Custom } };
}

type Shown =
  | Kind<'heatmap', heatmap.Options, heatmap.FieldConfig>
  | Kind<'stat', stat.Options, never>
  | Kind<'state-timeline', states.Options, states.FieldConfig>
  | Kind<'timeseries', series.Options, series.FieldConfig>
  | (Omit<RowPanel, 'panels'> & { panels: never[] });

type Event = AnnotationQuery<PrometheusQuery> & { titleFormat?: string; textFormat?: string; useValueForTime?: boolean };

export type Checked = Plain<
  Omit<Dashboard, 'panels' | 'annotations' | 'templating'> & {
    panels: Shown[];
    annotations: { list: Event[] };
    templating: { list: VariableModel[] };
  }
>;
