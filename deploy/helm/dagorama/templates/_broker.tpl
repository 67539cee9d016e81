{{- /* The pod of a broker, with a volume of its own or without one. */ -}}
{{- define "dagorama.brokerPod" -}}
metadata:
  labels:
    {{- include "dagorama.podLabels" (list . "broker") | nindent 4 }}
    {{- with .Values.broker.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.broker.annotations }}
  annotations: {{ toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "dagorama.podSpec" (list . .Values.broker) | nindent 2 }}
  {{- if eq .Values.store.kind "postgresql" }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: {{ .Values.broker.spread }}
      labelSelector:
        matchLabels: {{ include "dagorama.selector" (list . "broker") | nindent 10 }}
  {{- end }}
  serviceAccountName: {{ include "dagorama.brokerAccount" . }}
  terminationGracePeriodSeconds: {{ int .Values.broker.gracePeriod }}
  containers:
    - name: broker
      image: {{ include "dagorama.image" (list .Values.image .Chart.AppVersion) | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [dagorama-broker, serve]
      env:
        - {name: DAGORAMA_BIND, value: 0.0.0.0}
        - {name: DAGORAMA_PORT, value: {{ .Values.broker.port | quote }}}
        - {name: DAGORAMA_LOG_LEVEL, value: {{ .Values.broker.logLevel }}}
        - {name: DAGORAMA_LOG_FORMAT, value: json}
        - {name: DAGORAMA_HEALTH_HOST, value: 0.0.0.0}
        - {name: DAGORAMA_HEALTH_PORT, value: "8080"}
        - {name: DAGORAMA_METRICS_PORT, value: "8080"}
        {{- if eq .Values.store.kind "sqlite" }}
        - {name: DAGORAMA_STORE, value: "sqlite:////var/lib/dagorama/broker.sqlite3"}
        {{- else }}
        - name: DAGORAMA_STORE
          valueFrom:
            secretKeyRef: {name: {{ .Values.store.postgresql.existingSecret }}, key: {{ .Values.store.postgresql.key | quote }}}
        {{- end }}
        {{- with .Values.values.url }}
        - {name: DAGORAMA_VALUES, value: {{ . | quote }}}
        {{- end }}
        {{- if .Values.tokens.existingSecret }}
        - {name: DAGORAMA_TOKENS_FILE, value: /secrets/tokens/tokens.toml}
        {{- end }}
        {{- if .Values.tls.existingSecret }}
        - {name: DAGORAMA_BROKER_TLS_CERT, value: /secrets/tls/tls.crt}
        - {name: DAGORAMA_BROKER_TLS_KEY, value: /secrets/tls/tls.key}
        {{- end }}
        {{- if .Values.insecure }}
        - {name: DAGORAMA_INSECURE, value: "1"}
        {{- end }}
        {{- with .Values.broker.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: grpc, containerPort: {{ .Values.broker.port }}}
        - {name: http, containerPort: 8080}
      # A large store may take minutes to be read.
      startupProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 5
        failureThreshold: 120
      # A standby is ready: it could take over. It does not listen at the port of the service, so callers find the leader.
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 5
      livenessProbe:
        httpGet: {path: /livez, port: http}
        periodSeconds: 10
      resources: {{ toYaml .Values.broker.resources | nindent 8 }}
      securityContext: {{ toYaml .Values.securityContext | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- if eq .Values.store.kind "sqlite" }}
        - {name: store, mountPath: /var/lib/dagorama}
        {{- end }}
        {{- if .Values.values.existingClaim }}
        - {name: values, mountPath: {{ trimPrefix "file://" .Values.values.url | quote }}}
        {{- end }}
        {{- if .Values.tokens.existingSecret }}
        - {name: tokens, mountPath: /secrets/tokens, readOnly: true}
        {{- end }}
        {{- if .Values.tls.existingSecret }}
        - {name: tls, mountPath: /secrets/tls, readOnly: true}
        {{- end }}
        {{- with .Values.broker.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {}
    {{- with .Values.values.existingClaim }}
    - name: values
      persistentVolumeClaim: {claimName: {{ . }}}
    {{- end }}
    {{- if .Values.tokens.existingSecret }}
    - name: tokens
      secret:
        secretName: {{ .Values.tokens.existingSecret }}
        defaultMode: 0440
        items: [{key: {{ .Values.tokens.key | quote }}, path: tokens.toml}]
    {{- end }}
    {{- if .Values.tls.existingSecret }}
    - name: tls
      secret:
        secretName: {{ .Values.tls.existingSecret }}
        defaultMode: 0440
        items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
    {{- end }}
    {{- with .Values.broker.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
