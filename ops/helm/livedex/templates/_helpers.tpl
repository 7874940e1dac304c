{{- define "livedex.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end -}}
{{- $name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "livedex.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "livedex.labels" -}}
{{ include "livedex.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: livedex
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "livedex.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "livedex.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "livedex.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* of a container whose database URL is that of `who` */}}
{{- define "livedex.env" -}}
- name: LIVEDEX_CONFIG
  value: /etc/livedex/livedex.toml
- name: LIVEDEX_DATABASE_URL
  valueFrom:
    secretKeyRef:
      {{- $from := index .root.Values.database .who }}
      name: {{ $from.secret | required (printf "database.%s.secret names the secret with the database URL" .who) }}
      key: {{ $from.key }}
- name: LIVEDEX_LOG_FORMAT
  value: json
{{- with .root.Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* of a worker: the commands of the hook send no spans */}}
{{- define "livedex.tracing" -}}
{{- with .Values.tracing.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- end }}

{{/* the port of the collector: the one that its address names, or that of its scheme */}}
{{- define "livedex.tracingPort" -}}
{{- $url := urlParse .Values.tracing.endpoint -}}
{{- $named := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- $named | default (eq $url.scheme "https" | ternary "443" "80") -}}
{{- end }}

{{- define "livedex.mounts" -}}
- {name: config, mountPath: /etc/livedex/livedex.toml, subPath: livedex.toml, readOnly: true}
- {name: cache, mountPath: /var/cache/livedex}
- {name: tmp, mountPath: /tmp}
{{- range .Values.secretFiles }}
- {name: {{ .name }}, mountPath: /etc/livedex/{{ .name }}, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "livedex.volumes" -}}
- name: config
  {{- if .root.Values.configSecret }}
  secret:
    secretName: {{ .root.Values.configSecret }}
    defaultMode: 0440
  {{- else }}
  configMap:
    name: {{ .config }}
  {{- end }}
- name: cache
  emptyDir: {sizeLimit: 4Gi}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- range .root.Values.secretFiles }}
- name: {{ .name }}
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "livedex.scheduling" -}}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "livedex.selector" . | nindent 8 }}
{{- end }}

{{/* startup and liveness ask whether it is alive: a worker that waits for Postgres is not restarted, only not ready */}}
{{- define "livedex.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 2
  failureThreshold: 90
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}

{{/* who may read metrics. Prometheus is hardly ever a pod that may search: refused, it would page for workers that are well */}}
{{- define "livedex.metricsFrom" -}}
{{- $from := .Values.networkPolicy.metricsFrom -}}
{{- if .Values.monitoring.enabled -}}
{{- with .Values.monitoring.namespace -}}
{{- $labels := dict "kubernetes.io/metadata.name" . -}}
{{- $from = append $from (dict "namespaceSelector" (dict "matchLabels" $labels)) -}}
{{- end -}}
{{- if not $from -}}
{{- fail "monitoring.enabled with networkPolicy.enabled: name the namespace of your Prometheus in monitoring.namespace, or who may read metrics in networkPolicy.metricsFrom" -}}
{{- end -}}
{{- end -}}
{{- toYaml $from -}}
{{- end }}
