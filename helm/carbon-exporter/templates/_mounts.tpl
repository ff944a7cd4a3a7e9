{{/*
What the container has mounted, as pairs of a mount and its volume: each is a map with path, readOnly and volume.
Only parts of the host's /sys are mounted: a bind of all of it would bring along what is mounted below, such as tracefs
and the control groups, and those stay writable for uid 0.
*/}}
{{- define "carbon-exporter.mounts" -}}
{{- $features := include "carbon-exporter.features" . | fromYaml -}}
{{- $state := include "carbon-exporter.stateType" . -}}
settings:
  path: /etc/carbon-exporter/settings
  readOnly: true
  volume:
    configMap: {name: {{ include "carbon-exporter.fullname" . }}}
{{- with include "carbon-exporter.webSecret" . }}
web:
  path: /etc/carbon-exporter/web
  readOnly: true
  volume:
    secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with .Values.web.tlsSecret }}
tls:
  path: /etc/carbon-exporter/tls
  readOnly: true
  volume:
    secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with include "carbon-exporter.fileSecret" . }}
secret:
  path: /etc/carbon-exporter/secret
  readOnly: true
  volume:
    secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- if $features.hostSys }}
{{- range .Values.host.sys }}
sys-{{ replace "/" "-" . }}:
  path: /host/sys/{{ . }}
  readOnly: true
  volume:
    hostPath: {path: /sys/{{ . }}, type: Directory}
{{- end }}
{{- end }}
{{- if $features.podResources }}
pod-resources:
  path: {{ .Values.host.kubelet }}/pod-resources
  readOnly: true
  volume:
    hostPath: {path: {{ .Values.host.kubelet }}/pod-resources, type: Directory}
{{- end }}
{{- if $features.sdkSocket }}
{{- $run := printf "%s%s" .Values.host.run (ternary "" "/jobs" (default false $features.hostPID)) }}
run:
  path: {{ $run }}
  readOnly: false
  volume:
    hostPath: {path: {{ $run }}, type: DirectoryOrCreate}
{{- end }}
{{- if ne $state "none" }}
state:
  path: /var/lib/carbon-exporter
  readOnly: false
  volume:
    {{- if eq $state "hostPath" }}
    hostPath: {path: {{ .Values.state.path }}, type: DirectoryOrCreate}
    {{- else }}
    emptyDir: {sizeLimit: 64Mi}
    {{- end }}
{{- end }}
{{- end -}}

{{/* The flags that the chart sets; all else is in the settings file. */}}
{{- define "carbon-exporter.flags" -}}
{{- $features := include "carbon-exporter.features" . | fromYaml -}}
- --config.file=/etc/carbon-exporter/settings/config.yml
- --web.listen-address=:{{ .Values.web.port | int }}
{{- if include "carbon-exporter.webSecret" . }}
- --web.config.file=/etc/carbon-exporter/web/web-config.yml
{{- end }}
{{- with .Values.web.healthPort | int }}
- --web.health-address=:{{ . }}
{{- end }}
{{- if $features.hostSys }}
- --path.sysfs=/host/sys
{{- end }}
- --storage.path={{ ternary "" "/var/lib/carbon-exporter" (eq (include "carbon-exporter.stateType" .) "none") }}
- --sdk.socket={{ if and $features.sdkSocket $features.hostPID }}{{ .Values.host.run }}/sdk.sock{{ end }}
{{- if and $features.sdkSocket (not $features.hostPID) }}
- --sdk.job-sockets={{ .Values.host.run }}/jobs
{{- end }}
- --kubernetes.pods={{ ternary "auto" "off" (default false $features.podNames) }}
- --kubernetes.pod-resources-socket={{ if $features.podResources }}{{ .Values.host.kubelet }}/pod-resources/kubelet.sock{{ end }}
- --containers.sockets=
{{- end -}}
