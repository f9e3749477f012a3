{{- define "geolookup.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "geolookup.fullname" -}}
{{- $name := include "geolookup.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "geolookup.selector" -}}
app.kubernetes.io/name: {{ include "geolookup.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "geolookup.labels" -}}
{{ include "geolookup.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "geolookup.image" -}}
{{- with .Values.image }}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}

{{- define "geolookup.claim" -}}
{{- .Values.dataset.claim.name | default (printf "%s-dataset" (include "geolookup.fullname" .)) }}
{{- end }}

{{/* The restricted level of the pod security standards asks for these. */}}
{{- define "geolookup.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "geolookup.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/*
Three copies of the dataset: the one in use, the one before it, which a rollback returns to, and
the one that a reload reads. 96 MiB for the supervisor, 40 for each worker and the standby.
*/}}
{{- define "geolookup.memoryMiB" -}}
{{- $workers := int .Values.workers }}
{{- add (mul 3 (int .Values.dataset.sizeMiB)) 96 (mul 40 (add $workers 1)) (int .Values.memoryBudgetMiB) }}
{{- end }}

{{- define "geolookup.resources" -}}
{{- if .Values.resources }}
{{- toYaml .Values.resources }}
{{- else -}}
{{/* Of memory the limit is the request, so that a neighbour can't take it. CPU has no limit:
throttling would make joins wait. */ -}}
requests:
  cpu: {{ .Values.workers | quote }}
  memory: {{ include "geolookup.memoryMiB" . }}Mi
limits:
  memory: {{ include "geolookup.memoryMiB" . }}Mi
{{- end }}
{{- end }}

{{/* Not empty where the service reads files that may change under it, so that it may roll back. */}}
{{- define "geolookup.hasFiles" -}}
{{- if or (ne .Values.dataset.kind "embedded") .Values.regionSets .Values.overrides }}true{{ end }}
{{- end }}

{{/* JSON's numbers, booleans, strings and lists are TOML's, too. */}}
{{- define "geolookup.toml" -}}
listen = "0.0.0.0:50051"
metrics = "0.0.0.0:9464"
admin = "127.0.0.1:50052"
{{- if .Values.http.enabled }}
http = "0.0.0.0:8080"
{{- end }}
insecure = [{{ if not .Values.tls.secretName }}"listen", {{ if .Values.http.enabled }}"http", {{ end }}{{ end }}"metrics"]
workers = {{ .Values.workers }}
memory_budget = {{ mul (int .Values.memoryBudgetMiB) 1048576 }}
lame_duck = {{ .Values.stop.lameDuck }}
grace = {{ .Values.stop.grace }}
{{- if ne .Values.dataset.kind "embedded" }}
dataset = {{ printf "/var/lib/geolookup/%s" .Values.dataset.file | quote }}
{{- end }}
{{- if .Values.regionSets }}
region_sets = "/etc/geolookup-region-sets/regions.toml"
{{- end }}
{{- if .Values.overrides }}
overrides = "/etc/geolookup-overrides/overrides.toml"
{{- end }}
{{- if include "geolookup.hasFiles" . }}
rollback_folder = "/var/lib/geolookup-rollback"
{{- end }}
{{- if .Values.tls.secretName }}
tls_certificate = "/etc/geolookup-tls/tls.crt"
tls_key = "/etc/geolookup-tls/tls.key"
{{- with .Values.tls.clientCA }}
tls_client_ca = {{ printf "/etc/geolookup-tls/%s" . | quote }}
{{- end }}
{{- end }}
{{- range $name, $value := omit .Values.settings "allow" }}
{{ $name }} = {{ $value | toJson }}
{{- end }}
{{- with .Values.settings.allow }}

[allow]
{{- range $rpc, $identities := . }}
{{ $rpc | quote }} = {{ $identities | toJson }}
{{- end }}
{{- end }}
{{ end }}
