{{- /* Names, labels, and the parts that several pods share. */ -}}

{{- define "dagorama.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "dagorama.broker" -}}
{{- printf "%s-broker" (include "dagorama.fullname" .) -}}
{{- end -}}

{{- /* The name under which workers and KEDA, which is in another namespace, reach the broker. */ -}}
{{- define "dagorama.host" -}}
{{- printf "%s.%s.svc" (include "dagorama.broker" .) .Release.Namespace -}}
{{- end -}}

{{- define "dagorama.replicas" -}}
{{- if kindIs "invalid" .Values.broker.replicas -}}
{{- ternary 1 2 (eq .Values.store.kind "sqlite") -}}
{{- else -}}
{{- .Values.broker.replicas -}}
{{- end -}}
{{- end -}}

{{- /* Labels that select pods, which cannot change: call with (list $ component). */ -}}
{{- define "dagorama.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "dagorama.labels" -}}
{{- $root := index . 0 -}}
{{ include "dagorama.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Labels of pods. They have no version of the chart: else each new version would restart all pods. */ -}}
{{- define "dagorama.podLabels" -}}
{{ include "dagorama.selector" . }}
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Call with (list image default-tag). */ -}}
{{- define "dagorama.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default (index . 1) $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "dagorama.brokerAccount" -}}
{{- default (ternary (include "dagorama.broker" .) "default" .Values.broker.serviceAccount.create) .Values.broker.serviceAccount.name -}}
{{- end -}}

{{- define "dagorama.workerAccount" -}}
{{- default (ternary (printf "%s-worker" (include "dagorama.fullname" .)) "default" .Values.workers.serviceAccount.create) .Values.workers.serviceAccount.name -}}
{{- end -}}

{{- define "dagorama.caSecret" -}}
{{- default .Values.tls.existingSecret .Values.tls.ca.existingSecret -}}
{{- end -}}

{{- /* The broker's address, for a process that calls it. */ -}}
{{- define "dagorama.clientEnv" -}}
- {name: DAGORAMA_HOST, value: {{ include "dagorama.host" . | quote }}}
- {name: DAGORAMA_PORT, value: {{ .Values.broker.port | quote }}}
{{- if .Values.tls.existingSecret }}
- {name: DAGORAMA_TLS_CA, value: /secrets/ca/ca.crt}
{{- end }}
{{- end -}}

{{- define "dagorama.caMount" -}}
{{- if .Values.tls.existingSecret }}
- {name: ca, mountPath: /secrets/ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "dagorama.caVolume" -}}
{{- if .Values.tls.existingSecret }}
- name: ca
  secret:
    secretName: {{ include "dagorama.caSecret" . }}
    defaultMode: 0440
    items: [{key: {{ .Values.tls.ca.key | quote }}, path: ca.crt}]
{{- end }}
{{- end -}}

{{- /* Where a pod runs, and as whom: call with (list $ values-of-the-pod). */ -}}
{{- define "dagorama.podSpec" -}}
{{- $root := index . 0 -}}
{{- $own := index . 1 -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext: {{ toYaml $root.Values.podSecurityContext | nindent 2 }}
{{- with $own.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $own.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $own.topologySpreadConstraints }}
topologySpreadConstraints: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}
