{{/*
TOML of our own: toToml writes every number as a float, and not alike in Helm 3 and 4.
*/}}

{{/* A value on one line: text, boolean, number, list, or a table in braces. */}}
{{- define "aca-tokend.toml.value" -}}
{{- if kindIs "string" . -}}
  {{- if regexMatch "[\\x{7f}-\\x{9f}\\x{feff}]" . -}}
    {{- fail "config: a text has control characters, which a ConfigMap cannot hold" -}}
  {{- end -}}
  {{- toRawJson . -}}
{{- else if kindIs "map" . -}}
  {{- $pairs := list -}}
  {{- range $key, $value := . -}}
    {{- if not (kindIs "invalid" $value) -}}
      {{- $pairs = append $pairs (printf "%s = %s" (include "aca-tokend.toml.key" $key) (include "aca-tokend.toml.value" $value)) -}}
    {{- end -}}
  {{- end -}}
  {{- if $pairs -}}{ {{ join ", " $pairs }} }{{- else -}}{}{{- end -}}
{{- else if kindIs "slice" . -}}
  {{- $items := list -}}
  {{- range . -}}{{- $items = append $items (include "aca-tokend.toml.value" .) -}}{{- end -}}
  [{{ join ", " $items }}]
{{- else if kindIs "invalid" . -}}
  {{- fail "config: a list holds a null, which TOML has not" -}}
{{- else -}}
  {{- toJson . -}}
{{- end -}}
{{- end -}}

{{- define "aca-tokend.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . -}}{{- . -}}{{- else -}}{{- include "aca-tokend.toml.value" . -}}{{- end -}}
{{- end -}}

{{/*
A table: first what fits on lines, then its tables and lists of tables under headings of their own.
dict: table, path (its heading), headings (how many levels of tables below it still get a heading).
*/}}
{{- define "aca-tokend.toml.table" -}}
{{- $here := . -}}
{{- range $key, $value := .table -}}
  {{- if not (or (kindIs "invalid" $value) (and (kindIs "map" $value) $here.headings) (eq (include "aca-tokend.toml.tables" $value) "true")) -}}
    {{- printf "%s = %s\n" (include "aca-tokend.toml.key" $key) (include "aca-tokend.toml.value" $value) -}}
  {{- end -}}
{{- end -}}
{{- range $key, $value := .table -}}
  {{- $name := include "aca-tokend.toml.key" $key -}}
  {{- $path := empty $here.path | ternary $name (printf "%s.%s" $here.path $name) -}}
  {{- if and (kindIs "map" $value) $here.headings -}}
    {{- $inner := include "aca-tokend.toml.table" (dict "table" $value "path" $path "headings" (sub $here.headings 1 | int)) -}}
    {{- hasPrefix "\n" $inner | ternary "" (printf "\n[%s]\n" $path) -}}{{- $inner -}}
  {{- else if eq (include "aca-tokend.toml.tables" $value) "true" -}}
    {{- range $value -}}
      {{- printf "\n[[%s]]\n" $path -}}
      {{- include "aca-tokend.toml.table" (dict "table" . "path" $path "headings" 0) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether a value is a list of tables. */}}
{{- define "aca-tokend.toml.tables" -}}
{{- if and (kindIs "slice" .) . -}}
  {{- $all := true -}}
  {{- range . -}}{{- if not (kindIs "map" .) -}}{{- $all = false -}}{{- end -}}{{- end -}}
  {{- $all -}}
{{- end -}}
{{- end -}}
