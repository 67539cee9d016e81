"""Arguments and results of functions with codec="json": one JSON text in an envelope whose flags say so.

    arguments   an object with the given arguments by parameter: {"order": {...}, "count": 3}
    results     {"of": "module:Class.method", "value": ...}: the function whose annotation the value has,
                with its hash behind a "#" if the class cannot be imported: there may be several of its name

A promise is an object with the single key "$promise", or "$outcome" below outcome(), and its index in the table.

The rule: nothing here is unpickled, and no class is found by a name in the data, except the function of a result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from inspect import BoundArguments, Parameter
from struct import error as StructError
from typing import Any, NamedTuple

from dagorama.api.contract import JSON, REFS, SIGNED
from dagorama.errors import PromiseMisuse, TypeMismatch, ValueNotReadable
from dagorama.models.outcome import Outcome
from dagorama.models.promise import DAGPromise
from dagorama.user_code.function_parts import own_signature
from dagorama.values.codec import Called, Encoded, FailedSource, value_of_promise
from dagorama.values.envelope import body, content, flags, large_of, seal
from dagorama.values.json_types.containers import OUTCOME, PROMISE, checked_object
from dagorama.values.json_types.misfit import Misfit
from dagorama.values.json_types.shape import Hole, Shape
from dagorama.values.out_of_band import GetLarge, PutLarge, fetched
from dagorama.values.pickling import Promises
from dagorama.values.typed_json import TypedJson, from_bytes, to_bytes, unique

_OF, _VALUE = "of", "value"
#: The member of arguments with the time for which a schedule has started the instance: no parameter has this name.
_SCHEDULED = "$scheduled"


class JsonValue(NamedTuple):
    """The result of a function as JSON data, as an item of `fill`: the type of the promise's place reads it."""

    data: object


#: Returns the JSON types of the function with a name; None if it has none, or has other code elsewhere.
FindJson = Callable[[str], "JsonFunction | None"]


class JsonFunction:
    """The JSON types of the parameters and the result of a function."""

    __slots__ = ("_name", "_parameters", "_required", "_result", "_signature")

    def __init__(self, function: Callable[..., object], parameters: dict[str, TypedJson], result: TypedJson) -> None:
        """Take the types of all parameters except the first, `self`."""
        self._name = function.__qualname__
        self._parameters, self._result = parameters, result
        self._signature = own_signature(function)
        self._required = [
            name for name, each in self._signature.parameters.items()
            if each.default is Parameter.empty and each.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        ]  # fmt: skip

    def encode_call(
        self,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        *,
        large_from: int | None = None,
        put_large: PutLarge | None = None,
        scheduled: str = "",
    ) -> Encoded:
        """Return the arguments of a call, without `self`, in an envelope; raise TypeMismatch.

        `scheduled`: the time for which a schedule has started the instance.
        """
        holes = _Holes()
        data = {
            name: self._argument(name, value, holes, TypedJson.data)
            for name, value in self._signature.bind(*args, **kwargs).arguments.items()
        }
        if scheduled:
            data[_SCHEDULED] = scheduled
        return _sealed(to_bytes(data, f"{self._name}(): an argument"), holes.promises, large_from, put_large)

    def decode_call(self, envelope: bytes, fill: Sequence[object], *, get_large: GetLarge | None = None) -> Called:
        """Return the arguments in an envelope; raise TypeMismatch, also for an envelope that is not JSON."""
        if not flags(envelope) & JSON:
            raise TypeMismatch(
                f'the arguments are a pickle, and {self._name} has codec="json" in this process, so they are not '
                "unpickled: cancel the node and call the function again"
            )
        found = _data(envelope, fill, f"{self._name}(): the text of the arguments", get_large)
        scheduled = str(found.pop(_SCHEDULED, ""))
        holes = _Holes(fill)
        given = {name: self._argument(name, value, holes, TypedJson.value) for name, value in found.items()}
        if missing := [name for name in self._required if name not in given]:
            raise TypeMismatch(f"{self._name}(): argument {missing[0]!r} is missing")
        bound = BoundArguments(self._signature, {name: given[name] for name in self._parameters if name in given})
        return Called(bound.args, bound.kwargs, scheduled=scheduled)

    def _argument(
        self, name: str, value: Any, holes: _Holes, convert: Callable[[TypedJson, Any, str, _Holes], Any]
    ) -> Any:
        """Convert an argument; for *args and **kwargs, each of them."""
        what = f"{self._name}(): argument {name!r}"
        if name not in self._parameters:
            raise TypeMismatch(f"{what} is none of its parameters in this process")
        kind, type = self._signature.parameters[name].kind, self._parameters[name]
        if kind is Parameter.VAR_POSITIONAL:
            items = [convert(type, each, f"{what}[{index}]", holes) for index, each in enumerate(value)]
            return items if convert is TypedJson.data else tuple(items)
        if kind is Parameter.VAR_KEYWORD:
            found = {key: convert(type, each, f"{what}[{key!r}]", holes) for key, each in value.items()}
            return _refuse_mark(found, what, holes) if convert is TypedJson.data else found
        return convert(type, value, what, holes)

    def encode_result(
        self,
        function: str,
        value: object,
        *,
        find: FindJson | None = None,
        large_from: int | None = None,
        put_large: PutLarge | None = None,
    ) -> Encoded:
        """Return the result in an envelope; `function` is the name, "module:Class.method", or "name#hash".

        `find` tells the types of the functions whose promises are returned, if they are known for certain.
        Raises TypeMismatch, and PromiseMisuse for an outcome(), which only arguments can hold.
        """
        holes, what = _ResultHoles(find), f"{self._name}(): the result"
        data = {_OF: function, _VALUE: self._result.data(value, what, holes)}
        if holes.promises.outcomes:
            raise PromiseMisuse(
                f"{what} holds the {holes.promises.outcomes[0]!r}; only arguments of a @dagorama method can hold one"
            )
        return _sealed(to_bytes(data, what), holes.promises, large_from, put_large)

    def result_text(self, value: object) -> str:
        """Return a result that `encode_result` has taken as JSON, for people."""
        return to_bytes(self._result.data(value, holes=_Holes())).decode()

    def result_of(self, data: object, fill: Sequence[object]) -> Any:
        """Return the value of JSON data of a result.

        Raises TypeMismatch if the value of a promise that the function has returned does not fit its annotation, and
        ValueNotReadable if its own data do not: it was written with another annotation.
        """
        holes = _Holes(fill)
        try:
            return self._result.value(data, f"the result of {self._name}", holes)
        except TypeMismatch as error:
            if not holes.has_refused:
                raise ValueNotReadable(f"the value of a node does not fit here: {error}") from error
            raise TypeMismatch(
                f"{error}: {self._name} has returned the promise, and fails only where its value is read; change "
                "its annotation, or what it returns, and start another instance"
            ) from None

    def refuse_promise(self, place: Shape) -> None:
        """Raise Misfit if no result of this function, of which a promise is returned, fits the place."""
        if not place.can_hold(self._result.shape):
            raise Misfit(
                f"is a promise of {self._name}, which returns {self._result.shape.name}; {place.name} is expected"
            )

    def schema(self) -> dict[str, Any]:
        """Return the JSON schemas of the parameters and of the result."""
        parameters = {name: type.schema() for name, type in self._parameters.items()}
        return {"parameters": parameters, "required": self._required, "result": self._result.schema()}


class _Holes:
    """The promises of one envelope: numbered while it is written, or filled while it is read."""

    def __init__(self, fill: Sequence[object] = ()) -> None:
        self.promises = Promises()
        self.has_refused = False  #: whether the value of a promise did not fit
        self._fill = fill

    def mark(self, promise: DAGPromise[Any], shape: Shape) -> dict[str, int]:
        if isinstance(promise, Outcome):
            return {OUTCOME: self.promises.reduce_outcome(promise)[1][0]}
        return {PROMISE: self.promises.reduce(promise)[1][0]}

    def fill(self, hole: Hole, shape: Shape) -> Any:
        if not 0 <= hole.number < len(self._fill):
            raise Misfit("names a promise that its envelope does not have")
        found = self._fill[hole.number]
        if isinstance(found, FailedSource) or not isinstance(found, JsonValue):
            found = value_of_promise(self._fill, hole.number, hole.is_outcome)
        try:
            # A value is written too, so that it arrives as if it had been passed instead of the promise.
            return shape.decode(found.data if isinstance(found, JsonValue) else shape.encode(found))
        except Misfit as misfit:
            self.has_refused = True
            raise misfit.at(" (the value of a promise)") from None


class _ResultHoles(_Holes):
    """The promises that a function returns: its node completes, and nothing checks their values before a reader."""

    def __init__(self, find: FindJson | None) -> None:
        super().__init__()
        self._find = find

    def mark(self, promise: DAGPromise[Any], shape: Shape) -> dict[str, int]:
        name = promise.function_name
        if self._find is not None and name is not None and not isinstance(promise, Outcome):
            function = self._find(name)
            if function is not None:
                function.refuse_promise(shape)
        return super().mark(promise, shape)


def _refuse_mark(found: dict[str, Any], what: str, holes: _Holes) -> dict[str, Any]:
    """Return the data of `**kwargs`; raise TypeMismatch if readers would take them for a promise."""
    try:
        return checked_object(found, holes)
    except Misfit as misfit:
        raise TypeMismatch(misfit.sentence(what)) from None


def _sealed(data: bytes, promises: Promises, large_from: int | None, put_large: PutLarge | None) -> Encoded:
    apart = large_from is not None and put_large is not None and len(data) >= large_from
    large = put_large(data) if apart and put_large else None
    refs = [promise.node_id for promise in promises]
    return Encoded(seal(data, promises, large, kind=JSON), refs, promises, sorted(promises.tolerant))


# --- reading --------------------------------------------------------------------------------------------


def read_result(envelope: bytes, fill: Sequence[object] = (), *, get_large: GetLarge | None = None) -> Any:
    """Return the value in the JSON envelope of a result, by the annotation of the function that it names.

    Raises ValueNotReadable if that function is not found in this process, or is no JSON function, and TypeMismatch as
    `JsonFunction.result_of` does.
    """
    try:
        found = _data(envelope, fill, "the text of a result", get_large)
    except TypeMismatch as error:
        raise ValueNotReadable(f"the value of a node does not fit here: {error}") from error
    named = found.get(_OF)
    if type(named) is not str or _VALUE not in found:
        raise ValueNotReadable("it is JSON of another form than results have")
    # The class is looked up above this layer, as pickles find theirs.
    name, _, code_hash = named.partition("#")
    function: JsonFunction | None = import_module("dagorama.serializer").find(name, code_hash).decorated.json
    if function is None:
        raise ValueNotReadable(f"it is JSON of {name}, which has another codec in this process")
    return function.result_of(found[_VALUE], fill)


def json_value(envelope: bytes, *, get_large: GetLarge | None = None) -> JsonValue:
    """Return the data in the JSON envelope of a result without promises, for the arguments of a JSON function."""
    return JsonValue(_data(envelope, (), "the text of a result", get_large).get(_VALUE))


def _data(envelope: bytes, fill: Sequence[object], what: str, get_large: GetLarge | None) -> dict[str, Any]:
    marks = flags(envelope)
    if marks & SIGNED:
        raise ValueNotReadable("its signature has not been checked")
    if not marks & JSON:
        raise ValueNotReadable("it is a pickle, and JSON is expected")
    try:
        number = body(envelope)[0]
    except StructError as error:
        raise ValueNotReadable("its table of promises is cut short") from error
    if len(fill) != number:
        raise ValueNotReadable(f"it holds {number} promises and {len(fill)} values were given for them")
    large = large_of(envelope)
    text = content(envelope) if large is None else memoryview(fetched(*large, get_large))
    found = from_bytes(text, what, _with_holes if marks & REFS else None)
    if type(found) is not dict:
        raise ValueNotReadable(f"{what} is not a JSON object")
    return found


def _with_holes(pairs: list[tuple[str, Any]]) -> Any:
    """Return an object, or the hole that it stands for."""
    if len(pairs) == 1:
        key, index = pairs[0]
        if key in (PROMISE, OUTCOME) and type(index) is int:
            return Hole(index, key == OUTCOME)
    return unique(pairs)
