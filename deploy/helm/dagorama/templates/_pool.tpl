{{- /* The pod of a pool of workers: call with (list $ name pool). */ -}}
{{- define "dagorama.poolSelector" -}}
{{- include "dagorama.selector" (list (index . 0) "worker") }}
dagorama.dev/pool: {{ index . 1 }}
{{- end -}}

{{- define "dagorama.poolLabels" -}}
{{- include "dagorama.labels" (list (index . 0) "worker") }}
dagorama.dev/pool: {{ index . 1 }}
{{- with (index . 2).labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "dagorama.poolPodLabels" -}}
{{- include "dagorama.podLabels" (list (index . 0) "worker") }}
dagorama.dev/pool: {{ index . 1 }}
{{- with (index . 2).labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "dagorama.poolName" -}}
{{- printf "%s-%s" (include "dagorama.fullname" (index . 0)) (index . 1) -}}
{{- end -}}

{{- define "dagorama.poolArgs" -}}
{{- $pool := . -}}
- --concurrency
- {{ dig "concurrency" 1 $pool | int | quote }}
{{- range $pool.includeQueues }}
- --include-queue
- {{ . | quote }}
{{- end }}
{{- range $pool.excludeQueues }}
- --exclude-queue
- {{ . | quote }}
{{- end }}
{{- range $pool.tolerates }}
- --toleration
- {{ . | quote }}
{{- end }}
- --grace
- {{ dig "grace" 25 $pool | int | quote }}
{{- if eq (dig "kind" "deployment" $pool) "job" }}
- --until
- idle
- --idle
- {{ dig "idle" 60 $pool | int | quote }}
{{- end }}
{{- if hasKey $pool "lifetime" }}
- --lifetime
- {{ $pool.lifetime | int | quote }}
{{- end }}
- --health-host
- 0.0.0.0
- --health-port
- "8081"
{{- if dig "metrics" true $pool }}
- --metrics-port
- "8081"
{{- end }}
{{- range $pool.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "dagorama.poolPod" -}}
{{- $root := index . 0 -}}
{{- $pool := index . 2 -}}
metadata:
  labels: {{ include "dagorama.poolPodLabels" . | nindent 4 }}
  {{- with $pool.annotations }}
  annotations: {{ toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "dagorama.podSpec" (list $root $pool) | nindent 2 }}
  serviceAccountName: {{ default (include "dagorama.workerAccount" $root) $pool.serviceAccountName }}
  # Ten seconds more than running nodes get, in which the worker returns the others and leaves.
  terminationGracePeriodSeconds: {{ add (dig "grace" 25 $pool | int) 10 }}
  {{- if eq (dig "kind" "deployment" $pool) "job" }}
  restartPolicy: Never
  {{- end }}
  containers:
    - name: worker
      image: {{ include "dagorama.image" (list $pool.image $root.Chart.AppVersion) | quote }}
      imagePullPolicy: {{ default "IfNotPresent" $pool.image.pullPolicy }}
      command: [worker]
      args: {{ include "dagorama.poolArgs" $pool | nindent 8 }}
      env:
        {{- include "dagorama.clientEnv" $root | nindent 8 }}
        - {name: DAGORAMA_BROKER_WAIT, value: {{ $root.Values.brokerWait | int | quote }}}
        - {name: DAGORAMA_SIGNING_KEYS_FILE, value: /secrets/signing/signing.key}
        {{- if $root.Values.tokens.existingSecret }}
        {{- if $pool.autoscale }}
        # KEDA reads the token in this variable, too.
        - name: DAGORAMA_AUTH_TOKEN
          valueFrom:
            secretKeyRef: {name: {{ $pool.token.existingSecret }}, key: {{ dig "token" "key" "token" $pool | quote }}}
        {{- else }}
        - {name: DAGORAMA_AUTH_TOKEN_FILE, value: /secrets/token/token}
        {{- end }}
        {{- end }}
        {{- with $pool.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: http, containerPort: 8081}
      startupProbe:
        httpGet: {path: /livez, port: http}
        periodSeconds: 5
        failureThreshold: 24
      {{- if eq (dig "kind" "deployment" $pool) "deployment" }}
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 5
      {{- end }}
      # It does not depend on the broker: a worker that has lost it reconnects.
      livenessProbe:
        httpGet: {path: /livez, port: http}
        periodSeconds: 10
      {{- with $pool.resources }}
      resources: {{ toYaml . | nindent 8 }}
      {{- end }}
      securityContext: {{ toYaml $root.Values.securityContext | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: signing, mountPath: /secrets/signing, readOnly: true}
        {{- include "dagorama.caMount" $root | nindent 8 }}
        {{- if and $root.Values.tokens.existingSecret (not $pool.autoscale) }}
        - {name: token, mountPath: /secrets/token, readOnly: true}
        {{- end }}
        {{- with $pool.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    # Large values pass through it.
    - name: tmp
      emptyDir: {{ with $pool.spoolLimit }}{sizeLimit: {{ . }}}{{ else }}{}{{ end }}
    - name: signing
      secret:
        secretName: {{ $root.Values.signing.existingSecret }}
        defaultMode: 0440
        items: [{key: {{ $root.Values.signing.key | quote }}, path: signing.key}]
    {{- include "dagorama.caVolume" $root | nindent 4 }}
    {{- if and $root.Values.tokens.existingSecret (not $pool.autoscale) }}
    - name: token
      secret:
        secretName: {{ $pool.token.existingSecret }}
        defaultMode: 0440
        items: [{key: {{ dig "token" "key" "token" $pool | quote }}, path: token}]
    {{- end }}
    {{- with $pool.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- /* The trigger of KEDA: call with (list $ name pool type). */ -}}
{{- define "dagorama.trigger" -}}
{{- $root := index . 0 -}}
{{- $pool := index . 2 -}}
- type: {{ index . 3 }}
  {{- if eq (index . 3) "external-push" }}
  metricType: AverageValue
  {{- end }}
  metadata:
    scalerAddress: {{ printf "%s:%v" (include "dagorama.host" $root) $root.Values.broker.port | quote }}
    slotsPerPod: {{ dig "concurrency" 1 $pool | int | quote }}
    {{- with $pool.includeQueues }}
    includeQueues: {{ join "," . | quote }}
    {{- end }}
    {{- with $pool.excludeQueues }}
    excludeQueues: {{ join "," . | quote }}
    {{- end }}
    {{- with $pool.tolerates }}
    tolerations: {{ join "," . | quote }}
    {{- end }}
    {{- with $pool.autoscale.keyIds }}
    keyIds: {{ join "," . | quote }}
    {{- end }}
    {{- with $pool.autoscale.horizon }}
    horizon: {{ . | quote }}
    {{- end }}
    {{- with $pool.autoscale.share }}
    share: {{ . | quote }}
    {{- end }}
    {{- if $root.Values.tokens.existingSecret }}
    tokenFromEnv: DAGORAMA_AUTH_TOKEN
    {{- end }}
    {{- if $root.Values.tls.existingSecret }}
    enableTLS: "true"
  authenticationRef:
    name: {{ include "dagorama.broker" $root }}
    {{- end }}
{{- end -}}
