{{/* Names and labels that several manifests share. */}}

{{- define "carbon-exporter.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "carbon-exporter.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "carbon-exporter.metadata" -}}
name: {{ .name | default (include "carbon-exporter.fullname" .top) }}{{ with .suffix }}-{{ . }}{{ end }}
{{- if not .clusterwide }}
namespace: {{ .top.Release.Namespace }}
{{- end }}
labels:
  {{- include "carbon-exporter.selector" .top | nindent 2 }}
  app.kubernetes.io/version: {{ .top.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .top.Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .top.Chart.Name .top.Chart.Version | replace "+" "_" }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "carbon-exporter.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "carbon-exporter.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{- define "carbon-exporter.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* How the exporter spells the label of a job: its setting labels.job, in either spelling of the key. */}}
{{- define "carbon-exporter.jobLabel" -}}
{{- $nested := dig "labels" "job" "" .Values.config -}}
{{- get .Values.config "labels.job" | default $nested | default "job_name" -}}
{{- end -}}
