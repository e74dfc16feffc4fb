{{/* What cannot work is refused before anything is installed, with the place, the problem and the fix. No value that may be a secret is shown. */}}

{{- define "aca-tokend.checks" -}}
{{- $values := .Values -}}
{{- $config := .Values.config -}}
{{- if and $config $values.existingConfigMap -}}
  {{- fail "existingConfigMap: is set beside config; leave out one of the two" -}}
{{- else if not (or $config $values.existingConfigMap) -}}
  {{- fail "config: is missing; write the configuration there, or name a ConfigMap in existingConfigMap" -}}
{{- end -}}
{{- if and (gt (int $values.shards) 1) (gt (int $values.replicaCount) 2) -}}
  {{- fail "replicaCount: a StatefulSet of shards has one pod for each shard; leave replicaCount out, and for two pods a shard install the chart twice (docs/helm.md)" -}}
{{- end -}}
{{- if and $values.serviceMonitor.enabled $values.podMonitor.enabled -}}
  {{- fail "podMonitor.enabled: with serviceMonitor.enabled every pod would be scraped twice; leave out one of the two" -}}
{{- end -}}
{{- if and $values.existingConfigMap $values.networkPolicy.enabled (not $values.networkPolicy.egress) -}}
  {{- fail "networkPolicy.egress: is needed with existingConfigMap, whose servers the chart does not know; give rules for them, or set networkPolicy.enabled to false" -}}
{{- end -}}
{{- range $number, $mount := $values.volumeMounts -}}
  {{- if or $mount.subPath $mount.subPathExpr -}}
    {{- fail (printf "volumeMounts[%d].subPath: the pod would keep the first version for ever; mount the whole directory" $number) -}}
  {{- end -}}
{{- end -}}
{{- if $config -}}
  {{- if hasKey $config "shard" -}}
    {{- fail "config.shard: is written by the chart; set shards instead" -}}
  {{- end -}}
  {{- if not $config.acaengine -}}
    {{- fail "config.acaengine: is missing; name at least one server" -}}
  {{- end -}}
  {{- if not (or $config.tokens $config.include) -}}
    {{- fail "config.tokens: is empty; name at least one token" -}}
  {{- end -}}
  {{- if get ($config.admin | default dict) "tls_client_ca" -}}
    {{- fail "config.admin.tls_client_ca: the probes of the kubelet have no certificate and would fail; leave it out, and say in networkPolicy.from who may ask" -}}
  {{- end -}}
  {{- include "aca-tokend.checks.logins" . -}}
  {{- include "aca-tokend.checks.files" . -}}
  {{- include "aca-tokend.checks.places" . -}}
{{- end -}}
{{- end -}}

{{/* The pod has no token of its service account at the usual place. */}}
{{- define "aca-tokend.checks.logins" -}}
{{- range $name, $vault := .Values.config.vault -}}
  {{- $auth := get $vault "auth" | default dict -}}
  {{- if and (eq (get $auth "method") "kubernetes") (not (get $auth "jwt_file")) -}}
    {{- fail (printf "config.vault.%s.auth.jwt_file: is missing, and the pod has no token at the usual place; add {name: vault, audience: vault} to serviceAccountTokens, and set it to /run/secrets/tokens/vault" $name) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* Each file of a secret is mounted. */}}
{{- define "aca-tokend.checks.files" -}}
{{- $secrets := list -}}
{{- range .Values.secrets -}}{{- $secrets = append $secrets .name -}}{{- end -}}
{{- $tokens := list -}}
{{- range .Values.serviceAccountTokens -}}{{- $tokens = append $tokens .name -}}{{- end -}}
{{- range $line := include "aca-tokend.files" (dict "place" "config" "value" .Values.config) | trim | splitList "\n" -}}
  {{- $place := splitList "\t" $line | first -}}
  {{- $path := splitList "\t" $line | last -}}
  {{- if hasPrefix "/run/secrets/aca-tokend/" $path -}}
    {{- $name := index (splitList "/" $path) 4 -}}
    {{- if not (has $name $secrets) -}}
      {{- fail (printf "%s: lies in the Secret %s, which is not mounted; add {name: %s} to secrets" $place $name $name) -}}
    {{- end -}}
  {{- else if hasPrefix "/run/secrets/tokens/" $path -}}
    {{- $name := trimPrefix "/run/secrets/tokens/" $path -}}
    {{- if not (has $name $tokens) -}}
      {{- fail (printf "%s: is no token of the service account; add {name: %s, audience: …} to serviceAccountTokens" $place $name) -}}
    {{- end -}}
  {{- else if and $path (ne (include "aca-tokend.mounted" (dict "path" $path "mounts" $.Values.volumeMounts)) "true") -}}
    {{- fail (printf "%s: lies on no volume; add the Secret NAME to secrets and write /run/secrets/aca-tokend/NAME/KEY, or /run/secrets/tokens/NAME for one of serviceAccountTokens" $place) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether a path lies on one of the volumes that were given. dict: path, mounts. */}}
{{- define "aca-tokend.mounted" -}}
{{- $path := printf "%s/" .path -}}
{{- $there := false -}}
{{- range .mounts -}}
  {{- if hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) $path -}}{{- $there = true -}}{{- end -}}
{{- end -}}
{{- $there -}}
{{- end -}}

{{/* A line for each file of a secret: its place in the values, a tab, its path. CA certificates may be those of the image. */}}
{{- define "aca-tokend.files" -}}
{{- $place := .place -}}
{{- if kindIs "map" .value -}}
  {{- range $key, $value := .value -}}
    {{- if kindIs "string" $value -}}
      {{- if has $key (list "file" "jwt_file" "tls_key") -}}{{- printf "%s.%s\t%s\n" $place $key $value -}}{{- end -}}
    {{- else if or (kindIs "map" $value) (kindIs "slice" $value) -}}
      {{- include "aca-tokend.files" (dict "place" (printf "%s.%s" $place $key) "value" $value) -}}
    {{- end -}}
  {{- end -}}
{{- else if kindIs "slice" .value -}}
  {{- range $number, $value := .value -}}
    {{- if or (kindIs "map" $value) (kindIs "slice" $value) -}}
      {{- include "aca-tokend.files" (dict "place" (printf "%s[%d]" $place $number) "value" $value) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* Tokens are published to files on a volume: nothing else can be written to. */}}
{{- define "aca-tokend.checks.places" -}}
{{- $mounts := .Values.volumeMounts -}}
{{- range $number, $token := .Values.config.tokens -}}
  {{- range $index, $publish := $token.publish -}}
    {{- if has $publish.to (list "file" "directory") -}}
      {{- if ne (include "aca-tokend.mounted" (dict "path" $publish.path "mounts" $mounts)) "true" -}}
        {{- fail (printf "config.tokens[%d].publish[%d].path: %s lies on no volume, and the root file system cannot be written to; add one to volumes and volumeMounts" $number $index $publish.path) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}
