"""Schemas of the objects of other projects that the chart makes, as far as it uses them: KEDA, Prometheus operator.

Written down from their definitions, keda.sh/v1alpha1 and monitoring.coreos.com/v1. A field that is not here is refused.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def _object(required: str = "", /, **fields: Schema) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": fields, "required": required.split()}


def _of(group: str, kind: str, spec: Schema) -> Schema:
    metadata = _object("name namespace labels", name=_TEXT, namespace=_TEXT, labels=_TEXTS)
    return _object(
        "apiVersion kind metadata spec", apiVersion={"const": group}, kind={"const": kind}, metadata=metadata, spec=spec
    )


_TEXT: Schema = {"type": "string", "minLength": 1}
_TEXTS: Schema = {"type": "object", "additionalProperties": _TEXT}
_COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of, "minItems": 1}


#: All values of metadata are texts, in KEDA too: a number without quotes is refused by its API.
_TRIGGERS = _list(
    _object(
        "type metadata",
        type={"enum": ["external", "external-push"]},
        metricType={"enum": ["AverageValue", "Value"]},
        metadata=_TEXTS,
        authenticationRef=_object("name", name=_TEXT, kind={"enum": ["TriggerAuthentication"]}),
    )
)
_BEHAVIOR = _object(scaleDown=_object(stabilizationWindowSeconds={"type": "integer", "minimum": 0, "maximum": 3600}))
_SCALED_OBJECT = _object(
    "scaleTargetRef triggers",
    scaleTargetRef=_object("name", name=_TEXT, envSourceContainerName=_TEXT),
    minReplicaCount=_COUNT,
    maxReplicaCount=_COUNT,
    pollingInterval=_COUNT,
    cooldownPeriod=_COUNT,
    advanced=_object(horizontalPodAutoscalerConfig=_object(behavior=_BEHAVIOR)),
    triggers=_TRIGGERS,
)
_SCALED_JOB = _object(
    "jobTargetRef triggers",
    jobTargetRef=_object("template", backoffLimit=_COUNT, template={"type": "object"}),
    minReplicaCount=_COUNT,
    maxReplicaCount=_COUNT,
    pollingInterval=_COUNT,
    successfulJobsHistoryLimit=_COUNT,
    failedJobsHistoryLimit=_COUNT,
    envSourceContainerName=_TEXT,
    rollout=_object("strategy", strategy={"enum": ["default", "gradual"]}),
    triggers=_TRIGGERS,
)
_SECRET = _object("parameter name key", parameter={"const": "caCert"}, name=_TEXT, key=_TEXT)
_MONITOR = _object(
    "selector endpoints",
    selector=_object("matchLabels", matchLabels=_TEXTS),
    namespaceSelector=_object("matchNames", matchNames=_list(_TEXT)),
    endpoints=_list(_object("port", port=_TEXT, path=_TEXT, interval=_TEXT)),
)

SCHEMAS: dict[str, Schema] = {
    "ScaledObject": _of("keda.sh/v1alpha1", "ScaledObject", _SCALED_OBJECT),
    "ScaledJob": _of("keda.sh/v1alpha1", "ScaledJob", _SCALED_JOB),
    "TriggerAuthentication": _of(
        "keda.sh/v1alpha1", "TriggerAuthentication", _object("secretTargetRef", secretTargetRef=_list(_SECRET))
    ),
    "ServiceMonitor": _of("monitoring.coreos.com/v1", "ServiceMonitor", _MONITOR),
}
