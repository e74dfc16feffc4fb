{{/* Where the pods must reach: worked out of the addresses in the configuration. */}}

{{/*
The port of an address, and its host where that is an address of the network: "8200 10.0.0.1/32".
dict: url, place.
*/}}
{{- define "aca-tokend.peer" -}}
{{- $url := lower .url -}}
{{- if not (regexMatch "^https?://(\\[[0-9a-f:.]+\\]|[^][:/@?# ]+)(:[0-9]+)?/?$" $url) -}}
  {{- fail (printf "%s: is not scheme, host and port of a server" .place) -}}
{{- end -}}
{{- $rest := regexReplaceAll "^https?://|/$" $url "" -}}
{{- $port := regexFind ":[0-9]+$" (regexReplaceAll "^\\[.*\\]" $rest "") | trimPrefix ":" -}}
{{- $host := trimSuffix (printf ":%s" $port) $rest -}}
{{- $port | default (hasPrefix "https:" $url | ternary "443" "80") }}
{{- if regexMatch "^[0-9]+([.][0-9]+){3}$" $host }} {{ $host }}/32
{{- else if hasPrefix "[" $host }} {{ $host | trimPrefix "[" | trimSuffix "]" }}/128
{{- end -}}
{{- end -}}

{{/* A line for each server: its kind and name, its port, and its block of addresses if it has one. */}}
{{- define "aca-tokend.servers" -}}
{{- range $name, $endpoint := .Values.config.acaengine -}}
  {{- $key := $endpoint.proxy | empty | ternary "url" "proxy" -}}
  {{- $peer := include "aca-tokend.peer" (dict "url" (get $endpoint $key) "place" (printf "config.acaengine.%s.%s" $name $key)) -}}
  {{- printf "acaengine %s %s\n" $name $peer -}}
{{- end -}}
{{- range $name, $vault := .Values.config.vault -}}
  {{- range kindIs "slice" $vault.address | ternary $vault.address (list $vault.address) -}}
    {{- $peer := include "aca-tokend.peer" (dict "url" . "place" (printf "config.vault.%s.address" $name)) -}}
    {{- printf "vault %s %s\n" $name $peer -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* Rules for all servers. Those that may be at any address share one, with each port once. */}}
{{- define "aca-tokend.egress" -}}
{{- range $kind, $of := .Values.networkPolicy.to -}}
  {{- range $name, $_ := $of -}}
    {{- if not (hasKey (get $.Values.config $kind | default dict) $name) -}}
      {{- fail (printf "networkPolicy.to.%s.%s: there is no config.%s.%s" $kind $name $kind $name) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- $anywhere := list -}}
{{- $rules := list -}}
{{- range include "aca-tokend.servers" . | trim | splitList "\n" -}}
  {{- $words := splitList " " . -}}
  {{- if ge (len $words) 3 -}}
    {{- $peers := get (get $.Values.networkPolicy.to (index $words 0) | default dict) (index $words 1) -}}
    {{- if and (not $peers) (eq (len $words) 4) -}}
      {{- $peers = list (dict "ipBlock" (dict "cidr" (index $words 3))) -}}
    {{- end -}}
    {{- $port := index $words 2 | int -}}
    {{- if $peers -}}
      {{- $rules = append $rules (dict "to" $peers "ports" (list (dict "protocol" "TCP" "port" $port))) -}}
    {{- else -}}
      {{- $anywhere = append $anywhere $port -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- $ports := list -}}
{{- range $anywhere | uniq -}}
  {{- $ports = append $ports (dict "protocol" "TCP" "port" .) -}}
{{- end -}}
{{- if $ports -}}
  {{- $rules = prepend $rules (dict "ports" $ports) -}}
{{- end -}}
{{- if $rules -}}{{- toYaml ($rules | uniq) -}}{{- end -}}
{{- end -}}
