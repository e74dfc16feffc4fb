{{/* The pods: what the daemon's and the doctor's have in common, and the daemon's template. */}}

{{/* Without a token of the service account but those that are asked for, and without the variables of services. */}}
{{- define "aca-tokend.pod" -}}
serviceAccountName: {{ include "aca-tokend.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: config
    configMap:
      name: {{ .Values.existingConfigMap | default (include "aca-tokend.fullname" .) }}
  {{- range $number, $secret := .Values.secrets }}
  - name: secret-{{ $number }}
    secret:
      secretName: {{ $secret.name }}
      # readable by the group of the pod (fsGroup), and by nobody else
      defaultMode: 0440
  {{- end }}
  {{- if .Values.serviceAccountTokens }}
  - name: service-account-tokens
    projected:
      defaultMode: 0440
      sources:
        {{- range .Values.serviceAccountTokens }}
        - serviceAccountToken:
            path: {{ .name }}
            audience: {{ .audience | quote }}
            expirationSeconds: {{ .expirationSeconds | default 3600 | int }}
        {{- end }}
  {{- end }}
  {{- with .Values.volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Whole directories, never subPath: only they follow a changed ConfigMap or Secret. */}}
{{- define "aca-tokend.container" -}}
image: {{ include "aca-tokend.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - name: config
    mountPath: /etc/aca-tokend
    readOnly: true
  {{- range $number, $secret := .Values.secrets }}
  - name: secret-{{ $number }}
    mountPath: /run/secrets/aca-tokend/{{ $secret.name }}
    readOnly: true
  {{- end }}
  {{- if .Values.serviceAccountTokens }}
  - name: service-account-tokens
    mountPath: /run/secrets/tokens
    readOnly: true
  {{- end }}
  {{- with .Values.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "aca-tokend.template" -}}
{{- include "aca-tokend.checks" . -}}
metadata:
  labels:
    {{- include "aca-tokend.daemon" . | nindent 4 }}
    app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
    {{- with merge (dict) .Values.podLabels .Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    {{- if not .Values.existingConfigMap }}
    # of what a reload cannot take up; every other change of the ConfigMap is taken up without a restart
    checksum/needs-restart: {{ list .Values.config.admin (get (.Values.config.log | default dict) "format") | toJson | sha256sum }}
    {{- end }}
    kubectl.kubernetes.io/default-container: aca-tokend
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "aca-tokend.pod" . | nindent 2 }}
  # the daemon ends within 15 seconds; the rest is for a node that is busy
  terminationGracePeriodSeconds: 30
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    - {{ include "aca-tokend.spread" (dict "constraint" . "root" $) | nindent 6 | trim }}
    {{- end }}
  {{- end }}
  containers:
    - name: aca-tokend
      args: [run]
      {{- include "aca-tokend.container" . | nindent 6 }}
      {{- if or .Values.extraEnv (gt (int .Values.shards) 1) }}
      env:
        {{- if gt (int .Values.shards) 1 }}
        - name: ACA_TOKEND_SHARD
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        {{- end }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      ports:
        - name: admin
          containerPort: 9464
      # thousands of tokens are put on schedule before the first answer
      startupProbe:
        httpGet:
          path: /-/healthy
          port: admin
          scheme: {{ include "aca-tokend.scheme" . }}
        periodSeconds: 1
        timeoutSeconds: 5
        failureThreshold: 60
      # fails only where a restart helps, so never because of ACAEngine or Vault
      livenessProbe:
        httpGet:
          path: /-/healthy
          port: admin
          scheme: {{ include "aca-tokend.scheme" . }}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      # an attempt that failed counts as made: one wrong password does not hold up a rolling update
      readinessProbe:
        httpGet:
          path: /-/ready
          port: admin
          scheme: {{ include "aca-tokend.scheme" . }}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 3
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}

{{/* A constraint with the labels of our pods; in a Deployment, of those of the same revision, so that an update ends well spread. */}}
{{- define "aca-tokend.spread" -}}
{{- $constraint := deepCopy .constraint -}}
{{- if not $constraint.labelSelector -}}
  {{- $_ := set $constraint "labelSelector" (dict "matchLabels" (include "aca-tokend.daemon" .root | fromYaml)) -}}
  {{- if and (le (int .root.Values.shards) 1) (not (hasKey $constraint "matchLabelKeys")) -}}
    {{- $_ := set $constraint "matchLabelKeys" (list "pod-template-hash") -}}
  {{- end -}}
{{- end -}}
{{- toYaml $constraint -}}
{{- end -}}
