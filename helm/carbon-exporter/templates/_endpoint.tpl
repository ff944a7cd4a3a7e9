{{/*
How Prometheus scrapes, for both kinds of monitor; `monitor` are its values. An instance is called as its node, and labels
that change with each pod are dropped: then a series outlives the pod, as its counter does.
*/}}
{{- define "carbon-exporter.endpoint" -}}
port: http
scheme: {{ include "carbon-exporter.scheme" .top }}
interval: {{ .monitor.interval }}
{{- with .monitor.scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
honorLabels: {{ eq (include "carbon-exporter.jobLabel" .top) "job" }}
{{- with .monitor.tlsConfig }}
tlsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .monitor.basicAuth }}
basicAuth:
  {{- toYaml . | nindent 2 }}
{{- end }}
relabelings:
  - {sourceLabels: [__meta_kubernetes_pod_node_name], targetLabel: instance}
  - {action: labeldrop, regex: pod|container|endpoint|service}
  {{- with .monitor.relabelings }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .monitor.metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
