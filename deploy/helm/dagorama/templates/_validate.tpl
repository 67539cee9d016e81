{{- /* Rules between several values. values.schema.json checks each of them by itself. */ -}}
{{- define "dagorama.validate" -}}
{{- $v := .Values -}}
{{- if and (eq $v.store.kind "sqlite") (gt (int (include "dagorama.replicas" .)) 1) -}}
{{- fail "broker.replicas: a SQLite store serves one broker. Leave it out, or use store.kind=postgresql for a second broker that takes over." -}}
{{- end -}}
{{- if and (eq $v.store.kind "postgresql") (not $v.store.postgresql.existingSecret) -}}
{{- fail "store.postgresql.existingSecret: name a Secret with the URL of the database, postgresql://USER:PASSWORD@HOST/DATABASE." -}}
{{- end -}}
{{- if and (eq $v.store.kind "postgresql") (not $v.values.url) -}}
{{- fail "values.url: with PostgreSQL the brokers need a place for large values that all of them reach: s3://BUCKET/PREFIX, or file:///FOLDER together with values.existingClaim." -}}
{{- end -}}
{{- if and (hasPrefix "file://" $v.values.url) (not $v.values.existingClaim) -}}
{{- fail "values.existingClaim: name a PersistentVolumeClaim for the folder in values.url; otherwise values would be lost with the pod." -}}
{{- end -}}
{{- if and $v.values.existingClaim (not (hasPrefix "file://" $v.values.url)) -}}
{{- fail "values.existingClaim: it is mounted at the folder that values.url names, so set that to file:///FOLDER." -}}
{{- end -}}
{{- if not $v.insecure -}}
{{- if not $v.tls.existingSecret -}}
{{- fail "tls.existingSecret: name a Secret with tls.crt and tls.key. The broker refuses to serve other machines without TLS; for a trial in a closed network set insecure=true." -}}
{{- end -}}
{{- if not $v.tokens.existingSecret -}}
{{- fail "tokens.existingSecret: name a Secret with the file of tokens. The broker refuses to serve other machines without tokens; for a trial in a closed network set insecure=true." -}}
{{- end -}}
{{- end -}}
{{- if and $v.tokens.existingSecret (not $v.tls.existingSecret) -}}
{{- fail "tls.existingSecret: workers send no token in clear text, so name a Secret with tls.crt and tls.key, or leave out tokens.existingSecret." -}}
{{- end -}}
{{- if and $v.pools (not $v.signing.existingSecret) -}}
{{- fail "signing.existingSecret: name a Secret with the signing keys that workers and clients share; `dagorama keys new` makes one." -}}
{{- end -}}
{{- if and $v.dashboard.enabled (not $v.dashboard.allowedHosts) -}}
{{- fail "dashboard.allowedHosts: name the hosts under which browsers reach the dashboard; it answers to no others." -}}
{{- end -}}
{{- range $name, $pool := $v.pools -}}
{{- include "dagorama.validatePool" (list $ $name $pool) -}}
{{- end -}}
{{- include "dagorama.validateRules" . -}}
{{- end -}}

{{- /* The broker counts workers with the same token, queues and tolerations as one pool, so KEDA cannot scale two of them. */ -}}
{{- define "dagorama.validateRules" -}}
{{- $seen := dict -}}
{{- range $name, $pool := .Values.pools -}}
{{- $names := dict "in" (default list $pool.includeQueues | sortAlpha) "out" (default list $pool.excludeQueues | sortAlpha) "tolerates" (default list $pool.tolerates | sortAlpha) -}}
{{- $rules := toJson (dict "token" (dig "token" "existingSecret" "" $pool) "key" (dig "token" "key" "token" $pool) "names" $names) -}}
{{- $other := get $seen $rules -}}
{{- if and $other (or $pool.autoscale (index $.Values.pools $other).autoscale) -}}
{{- fail (printf "pools.%s and pools.%s: the broker cannot tell their workers apart, and would count what one of them runs for both. Give them tokens of their own, which also tells old code from new code, or other queues." $other $name) -}}
{{- end -}}
{{- $_ := set $seen $rules $name -}}
{{- end -}}
{{- end -}}

{{- define "dagorama.validatePool" -}}
{{- $v := (index . 0).Values -}}
{{- $name := index . 1 -}}
{{- $pool := index . 2 -}}
{{- if and $v.tokens.existingSecret (not (dig "token" "existingSecret" "" $pool)) -}}
{{- fail (printf "pools.%s.token.existingSecret: name a Secret with the token of this pool's workers; `dagorama tokens new --role worker` makes one." $name) -}}
{{- end -}}
{{- if and $pool.token (not $v.tokens.existingSecret) -}}
{{- fail (printf "pools.%s.token: the broker checks no tokens, because tokens.existingSecret is empty. Set that, or leave out the token." $name) -}}
{{- end -}}
{{- if not (or $pool.image.tag $pool.image.digest) -}}
{{- fail (printf "pools.%s.image: give a tag or a digest, so that all workers of the pool have the same code." $name) -}}
{{- end -}}
{{- if eq (dig "kind" "deployment" $pool) "job" -}}
{{- if not $pool.autoscale -}}
{{- fail (printf "pools.%s.autoscale: jobs are started by KEDA, so give at least the most of them, autoscale.max; or use kind=deployment." $name) -}}
{{- end -}}
{{- else if hasKey $pool "idle" -}}
{{- fail (printf "pools.%s.idle: workers of a deployment do not leave by themselves. Use kind=job, or leave it out." $name) -}}
{{- end -}}
{{- with $pool.autoscale -}}
{{- if hasKey $pool "replicas" -}}
{{- fail (printf "pools.%s.replicas: KEDA sets the number of pods. Use autoscale.min, or leave out autoscale." $name) -}}
{{- end -}}
{{- if gt (int (dig "min" 0 .)) (int .max) -}}
{{- fail (printf "pools.%s.autoscale: min is %v and max is %v." $name .min .max) -}}
{{- end -}}
{{- range concat (default list $pool.includeQueues) (default list $pool.excludeQueues) (default list $pool.tolerates) -}}
{{- if contains "," . -}}
{{- fail (printf "pools.%s: KEDA's metadata separate names with commas, and %q has one. Rename it, or leave out autoscale." $name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
