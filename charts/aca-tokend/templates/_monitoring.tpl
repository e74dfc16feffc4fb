{{/* What ServiceMonitor and PodMonitor scrape. dict: root, monitor. */}}
{{- define "aca-tokend.scrape" -}}
port: admin
path: /metrics
scheme: {{ include "aca-tokend.scheme" .root | lower }}
interval: {{ .monitor.interval }}
# the operator gives each target a label endpoint, and our metrics have one of that name: ours is to stay
honorLabels: true
{{- with .monitor.tlsConfig }}
tlsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
