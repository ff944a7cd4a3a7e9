{{/* What a mode asks for. */}}

{{/* The features that are on, as a map of YAML: those of the mode, changed by the values of `features`. */}}
{{- define "carbon-exporter.features" -}}
{{- $standard := dict "root" true "hostSys" true "podResources" true "podNames" true -}}
{{- $full := merge (dict "hostPID" true "sdkSocket" true) $standard -}}
{{- $features := get (dict "minimal" dict "standard" $standard "full" $full) .Values.mode -}}
{{- range $name, $chosen := .Values.features -}}
{{- if kindIs "bool" $chosen -}}{{- $_ := set $features $name $chosen -}}{{- end -}}
{{- end -}}
{{- range $name := list "podResources" "sdkSocket" -}}
{{- if and (get $features $name) (not $features.root) -}}
{{- fail (printf "features.%s needs features.root: its place on the host belongs to root" $name) -}}
{{- end -}}
{{- end -}}
{{- toYaml $features -}}
{{- end -}}

{{/* hostPath, emptyDir or none. */}}
{{- define "carbon-exporter.stateType" -}}
{{- $type := .Values.state.type | default (ternary "emptyDir" "hostPath" (eq .Values.mode "minimal")) -}}
{{- if and (eq $type "hostPath") (regexMatch "^/(dev|proc|sys)(/|$)" (clean .Values.state.path)) -}}
{{- fail (printf "state.path: %s is the kernel's; totals need a directory of a disk" .Values.state.path) -}}
{{- end -}}
{{- $type -}}
{{- end -}}

{{/* The port of the kubelet's probes; 0 if they ask that of /metrics. */}}
{{- define "carbon-exporter.healthPort" -}}
{{- if eq (int .Values.web.healthPort) (int .Values.web.port) -}}
{{- fail "web.healthPort must be another port than web.port" -}}
{{- end -}}
{{- int .Values.web.healthPort -}}
{{- end -}}

{{/* http or https. */}}
{{- define "carbon-exporter.scheme" -}}
{{- $https := dig "tls_server_config" "cert_file" "" .Values.web.config -}}
{{- if kindIs "bool" .Values.web.https -}}{{- $https = .Values.web.https -}}{{- end -}}
{{- ternary "https" "http" (not (empty $https)) -}}
{{- end -}}

{{/* The Secret with web-config.yml; empty if there is none. */}}
{{- define "carbon-exporter.webSecret" -}}
{{- if and .Values.web.config .Values.web.existingSecret -}}
{{- fail "web.config and web.existingSecret: only one of them" -}}
{{- end -}}
{{- $asked := dig "tls_server_config" "client_auth_type" "" .Values.web.config -}}
{{- if and (has $asked (list "RequireAnyClientCert" "RequireAndVerifyClientCert")) (not .Values.web.healthPort) -}}
{{- fail "web.healthPort must be set: the kubelet shows no certificate, and web.config asks for one" -}}
{{- end -}}
{{- if .Values.web.config -}}
{{ include "carbon-exporter.fullname" . }}-web
{{- else -}}
{{ .Values.web.existingSecret }}
{{- end -}}
{{- end -}}

{{/* The Secret with further files; empty if there is none. */}}
{{- define "carbon-exporter.fileSecret" -}}
{{- if and .Values.secret.files .Values.secret.existing -}}
{{- fail "secret.files and secret.existing: only one of them" -}}
{{- end -}}
{{- if .Values.secret.files -}}
{{ include "carbon-exporter.fullname" . }}
{{- else -}}
{{ .Values.secret.existing }}
{{- end -}}
{{- end -}}
