"""KEDA as a scaler meets it: its messages by names and numbers of its own, its calls, and what it does to metadata.

The messages are written down again here, from KEDA's public contract, so that a wrong number in ours is noticed. See
pkg/scalers/external_scaler.go of kedacore/keda for what it sends and when.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

SERVICE = "/externalscaler.ExternalScaler/"
_TYPES = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
}
#: The fields of each message in the order of their numbers, which are 1, 2 and so on; "*" marks a list.
_MESSAGES = {
    "MetadataEntry": ("key string", "value string"),
    "ScaledObjectRef": ("name string", "namespace string", "scalerMetadata *MetadataEntry"),
    "IsActiveResponse": ("result bool",),
    "GetMetricSpecResponse": ("metricSpecs *MetricSpec",),
    "MetricSpec": ("metricName string", "targetSize int64", "targetSizeFloat double"),
    "GetMetricsRequest": ("scaledObjectRef ScaledObjectRef", "metricName string"),
    "GetMetricsResponse": ("metricValues *MetricValue",),
    "MetricValue": ("metricName string", "metricValue int64", "metricValueFloat double"),
}


def _described(name: str) -> DescriptorProto:
    described = DescriptorProto(name=name)
    for number, line in enumerate(_MESSAGES[name], 1):
        field, kind = line.split()
        is_list, kind = kind.startswith("*"), kind.removeprefix("*")
        added = described.field.add(name=field, number=number)
        added.label = FieldDescriptorProto.LABEL_REPEATED if is_list else FieldDescriptorProto.LABEL_OPTIONAL
        if kind in _TYPES:
            added.type = _TYPES[kind]
        else:
            added.type, added.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".externalscaler.{kind}"
    return described


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    file = FileDescriptorProto(name="externalscaler.proto", package="externalscaler", syntax="proto3")
    file.message_type.extend(map(_described, _MESSAGES))
    pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _pool()


def message(name: str, /, **fields: Any) -> Any:
    """A message of KEDA's contract. A map is a list of entries on the wire."""
    return GetMessageClass(_POOL.FindMessageTypeByName(f"externalscaler.{name}"))(**fields)


def _parser(name: str) -> Any:
    return type(message(name)).FromString


@dataclass
class Trigger:
    """A trigger of a ScaledObject or ScaledJob, and the environment of the pod that it scales."""

    metadata: Mapping[str, str]
    environment: Mapping[str, str]

    @property
    def reference(self) -> Any:
        """The message that KEDA sends, with the values of variables, and without keys whose variable is unset."""
        resolved = {
            key: self.environment.get(value, "") if key.endswith("FromEnv") else value
            for key, value in {"scalerAddress": "broker:50051", **self.metadata}.items()
        }
        entries = [
            message("MetadataEntry", key=key, value=value)
            for key, value in resolved.items()
            if value or not key.endswith("FromEnv")
        ]
        return message("ScaledObjectRef", name="worker", namespace="dagorama", scalerMetadata=entries)


class ExternalScaler:
    """The calls of KEDA's client on a channel, which may be one of `grpc` or `grpc.aio`. No call has gRPC metadata."""

    def __init__(self, channel: Any, trigger: Trigger) -> None:
        self._channel, self._trigger = channel, trigger

    def is_active(self) -> Any:
        return self._unary("IsActive", "IsActiveResponse")(self._trigger.reference)

    def stream(self) -> Any:
        return self._stream("StreamIsActive", "IsActiveResponse")(self._trigger.reference)

    def stream_metric_spec(self) -> Any:
        return self._stream("StreamMetricSpec", "GetMetricSpecResponse")(self._trigger.reference)

    def metric_spec(self) -> Any:
        return self._unary("GetMetricSpec", "GetMetricSpecResponse")(self._trigger.reference)

    def metrics(self, name: str) -> Any:
        request = message("GetMetricsRequest", scaledObjectRef=self._trigger.reference, metricName=name)
        return self._unary("GetMetrics", "GetMetricsResponse")(request)

    def _unary(self, call: str, reply: str) -> Any:
        return self._channel.unary_unary(SERVICE + call, _serialized, _parser(reply))

    def _stream(self, call: str, reply: str) -> Any:
        return self._channel.unary_stream(SERVICE + call, _serialized, _parser(reply))


def _serialized(request: Any) -> bytes:
    found: bytes = request.SerializeToString()
    return found
