"""Nodes as a child runs them, and the functions that it has found for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import HOOK, JSON, REFS, SIGNAL
from dagorama.calls.functions import decorated_method, from_wrapper
from dagorama.definition import DAGDefinition
from dagorama.errors import CodeMismatchException, DefinitionNotRegistered, FunctionNotFound
from dagorama.graph.cache_keys import CacheKeys
from dagorama.graph.definitions import definition_like
from dagorama.graph.node_batch import FunctionSpec
from dagorama.graph.scope import Binding
from dagorama.retry import RetryConfiguration
from dagorama.serializer import find
from dagorama.user_code.class_code import code_of, read_text
from dagorama.user_code.modules import is_local
from dagorama.user_code.names import class_name
from dagorama.values.assembly import decode_promised, read_value
from dagorama.values.codec import Encoded, decode
from dagorama.values.failures import failed_source, told_failure
from dagorama.values.out_of_band import GetLarge, PutLarge
from dagorama.values.rebind import Wanted
from dagorama.values.signing import SignedValues, code_text, function_digest

if TYPE_CHECKING:
    from dagorama.models.failure import Failure
    from dagorama.values.json_calls import JsonFunction

#: errors of a function that this process cannot run, and the reasons for which its nodes are returned then
UNUSABLE_REASONS: dict[type[BaseException], pb.ReturnReason.ValueType] = {
    FunctionNotFound: pb.NOT_IMPORTABLE,
    CodeMismatchException: pb.CODE_MISMATCH,
}


class Unusable(Exception):
    """This process cannot have the definition that the node needs. The cause of the exception says why."""


class Target(NamedTuple):
    """A function that was found in this process."""

    cls: type[DAGDefinition]
    function: Callable[..., Any]
    retry: RetryConfiguration | None
    bound: Binding | None  #: gives called functions the code of the caller's class; None if they have it already
    json: JsonFunction | None  #: reads its arguments and writes its result; None if they are pickled
    cache: CacheKeys | None  #: computes the cache keys of its nodes; None if its values are not cached

    def json_named(self, name: str) -> JsonFunction | None:
        """Return the JSON types of another function of the same class, whose code is the one of this process."""
        path, _, base = name.partition("@")
        class_path, _, method = path.rpartition(".")
        if class_path != class_name(self.cls):
            return None
        wrapper = decorated_method(self.cls, method, base)
        return None if wrapper is None else from_wrapper(wrapper).json


class Work:
    """A function as the broker names it, and, after it was first needed, the function found in this process."""

    __slots__ = (
        "cached", "class_code", "code", "definition", "digest", "hash", "is_async", "key_id", "name", "queue",
        "result_of", "stream_children", "taint", "target", "timeout", "unusable",
    )  # fmt: skip

    def __init__(self, function: pb.Function) -> None:
        self.name = function.name
        self.hash = function.hash
        self.queue, self.taint = function.queue, function.taint
        self.class_code = function.class_code
        self.code = code_text(function.hash, function.class_code)
        self.digest = function_digest(function.name, self.code)
        self.key_id = function.key_id  #: the key with which the arguments of its nodes should be signed
        self.is_async = function.is_async
        self.stream_children = function.stream_children
        self.timeout = function.timeout  #: seconds; 0 for none
        self.cached = function.cached
        self.result_of = function.name  #: how a JSON result names the function
        self.target: Target | None = None
        self.definition: DAGDefinition | None = None  #: for nodes whose caller has no constructor arguments
        self.unusable: BaseException | None = None  #: why this process cannot run the function

    def load(self) -> Target:
        """Find the function, once. Raises one of the errors in UNUSABLE_REASONS."""
        if self.unusable is not None:
            raise self.unusable
        try:
            self.target = self._find()
        except tuple(UNUSABLE_REASONS) as error:
            self.unusable = error.with_traceback(None)
            raise
        return self.target

    def make_definition(self, cls: type[DAGDefinition]) -> DAGDefinition:
        """Construct the definition for nodes whose caller has no constructor arguments. Raises Unusable."""
        self.definition = definition_of(cls, None)
        return self.definition

    def encode_json(self, result: object, large_from: int, put_large: PutLarge) -> Encoded:
        """Return the result of a function with codec="json", which was found, in an envelope."""
        assert self.target is not None
        assert self.target.json is not None
        return self.target.json.encode_result(
            self.result_of, result, find=self.target.json_named, large_from=large_from, put_large=put_large
        )

    def _find(self) -> Target:
        found = find(self.name, self.hash, self.class_code)
        spec = found.decorated.spec(found.cls)
        if not self.hash:  # the broker asks for the hash of the deployed code, to run the node with that
            raise CodeMismatchException(f"the code of {self.name} here has another hash", spec.hash)
        if spec.hash != self.hash:
            raise CodeMismatchException(
                f"{self.name} has other code here than where the node was made (hash {spec.hash}, not {self.hash})",
                spec.hash,
            )
        if is_local(found.cls):  # there may be several classes of its name
            self.result_of = f"{self.name}#{self.hash}"
        is_own = not self.class_code or self.class_code == spec.class_code
        bound = None if is_own else binding(self.class_code)
        options = found.decorated.options
        cache = None
        if options.cache is not None and self.cached:
            code = self.name, self.hash, self.class_code or code_of(found.cls).text
            cache = CacheKeys(options.cache, found.decorated.function, *code)
        return Target(found.cls, found.decorated.function, options.retry, bound, spec.json, cache)


def binding(class_code: str) -> Binding:
    """Return a function that gives each function of a class its hash in the class code."""
    hashes, known = read_text(class_code), dict[FunctionSpec, FunctionSpec]()

    def bound(function: FunctionSpec) -> FunctionSpec:
        found = known.get(function)
        if found is None:
            method = function.name[len(function.name.partition("@")[0].rpartition(".")[0]) + 1 :]
            code_hash = hashes.get(method, function.hash)
            found = known[function] = replace(function, hash=code_hash, class_code=class_code)
        return found

    return bound


def definition_of(cls: type[DAGDefinition], constructor: bytes | None) -> DAGDefinition:
    """Construct a definition with the caller's constructor arguments, if there are any. Raises Unusable."""
    try:
        return definition_like(cls, constructor)
    except DefinitionNotRegistered as error:
        raise Unusable from error


class Values(NamedTuple):
    """The values that the nodes of a grant need, by the IDs of the nodes that returned them."""

    signed: SignedValues
    failed: Mapping[bytes, bytes]  #: the serialized NodeFailure of nodes that have no value

    def read(self, id: bytes, instance: bytes, get_large: GetLarge, as_json: bool = False) -> object:
        """Return a new copy of the value of a node, or a FailedSource if the node failed.

        With `as_json`, a value that was written as JSON is a JsonValue, unless it contains promises.
        """
        if id in self.failed:
            return failed_source(self.failed[id], instance)
        envelope = self.signed.get_of(id, instance)
        if envelope is None or envelope[1] & REFS:
            return decode_promised(id, self.signed, get_large=get_large)
        return read_whole(envelope, as_json, get_large)


def read_whole(envelope: bytes, as_json: bool, get_large: GetLarge | None = None) -> object:
    """Return the value in the envelope of a result without promises, or with `as_json` a JsonValue if it is JSON."""
    if not envelope[1] & (JSON | SIGNAL):
        return decode(envelope, what="value of a node", get_large=get_large)
    if not as_json or envelope[1] == SIGNAL:
        return read_value(envelope, get_large=get_large)
    from dagorama.values.json_calls import json_value

    return json_value(envelope, get_large=get_large)


class Call(NamedTuple):
    """One node to run. Its signed arguments tell which values it needs."""

    node: int
    attempt: int
    work: Work
    id: bytes
    instance: bytes
    arguments: bytes
    values: Values
    runs: int = 0  #: earlier attempts that failed
    made_with: str = ""  #: the `code_text` that its arguments were signed for; empty if it is the code of `work`
    beside: Sequence[int] = ()  #: sources that run here before it, and whose values are passed on in memory
    rebinding: pb.SignedRebinding | None = None  #: allows `work` to run it although it was made with other code
    trace: str = ""  #: the trace context of what created it; empty: it is not traced
    links: Sequence[str] = ()  #: the trace contexts of the attempts that its sources come from, as far as known
    to_run: bool = False  #: of a function with a cache: the broker has no value for its key
    found: pb.CachedNode | None = None  #: of such a function: a node that has the value, as the broker says
    announced: bytes = b""  #: of such a function: the key that only its caller has computed; empty: none

    @property
    def function(self) -> bytes:
        """The `function_digest` to which its arguments are bound."""
        return function_digest(self.work.name, self.made_with) if self.made_with else self.work.digest

    @property
    def added(self) -> tuple[Failure] | tuple[()]:
        """The failure that the broker has added to the arguments of a failure hook; nothing for other functions."""
        return (told_failure(self.arguments, self.instance),) if self.arguments[1] & HOOK else ()

    @property
    def wanted(self) -> Wanted:
        """The statement that its rebinding must allow, if it was made with other code."""
        return Wanted(self.id, self.instance, self.work.name, self.made_with, self.work.code)
