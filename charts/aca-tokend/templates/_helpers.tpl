{{/* Names, labels and what several objects share. */}}

{{- define "aca-tokend.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 52 characters: a StatefulSet adds a hash to it, and we add -dashboard. */}}
{{- define "aca-tokend.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $made := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- .Values.fullnameOverride | default $made | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "aca-tokend.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "aca-tokend.fullname" .) "default") -}}
{{- end -}}

{{- define "aca-tokend.image" -}}
{{- $repository := .Values.image.repository -}}
{{- if not $repository -}}
  {{- fail "image.repository: is missing; set the registry and name of the image, such as registry.example.com/aca-tokend" -}}
{{- end -}}
{{- if .Values.image.digest -}}
  {{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
  {{- printf "%s:%s" $repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "aca-tokend.selector" -}}
app.kubernetes.io/name: {{ include "aca-tokend.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The daemon's pods, without the doctor's. */}}
{{- define "aca-tokend.daemon" -}}
{{ include "aca-tokend.selector" . }}
app.kubernetes.io/component: daemon
{{- end -}}

{{- define "aca-tokend.labels" -}}
{{ include "aca-tokend.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "aca-tokend.metadata" -}}
name: {{ include "aca-tokend.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "aca-tokend.labels" . | nindent 2 }}
{{- end -}}

{{/* The configuration as it is written: what was given, and what the chart itself must see to. */}}
{{- define "aca-tokend.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "admin" (merge ($config.admin | default dict) (dict "listen" "0.0.0.0:9464")) -}}
{{- if gt (int .Values.shards) 1 -}}
  {{- $_ := set $config "shard" (dict "count" (int .Values.shards) "index" (dict "env" "ACA_TOKEND_SHARD")) -}}
{{- end -}}
{{- include "aca-tokend.toml.table" (dict "table" $config "path" "" "headings" 3) -}}
{{- end -}}

{{- define "aca-tokend.scheme" -}}
{{- get (.Values.config.admin | default dict) "tls_cert" | empty | ternary "HTTP" "HTTPS" -}}
{{- end -}}
