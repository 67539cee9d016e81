"""Annotations to JSON types, once for each annotation of a function.

The rule: an annotation is accepted only if every value that fits it can be written and read back as it was.
"""

from __future__ import annotations

import types
import typing
from collections import abc, deque
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from inspect import isclass
from typing import Any, get_args, get_origin, get_type_hints

from dagorama.values.json_types.choices import enum_shape, literal_shape
from dagorama.values.json_types.containers import Anything, Fixed, Listed, Mapping, Set
from dagorama.values.json_types.libraries import constrained, foreign_shape
from dagorama.values.json_types.misfit import Misfit, Unsupported
from dagorama.values.json_types.records import Dataclass, Field, Named, Record, Typed
from dagorama.values.json_types.scalars import scalars
from dagorama.values.json_types.shape import Shape
from dagorama.values.json_types.unions import Union, check_members

_SCALARS = scalars()
_ANY = Anything()
#: The first of them is used for values; abstract types stand for it.
_LISTS: frozenset[Any] = frozenset({list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable})
_SETS: dict[Any, Any] = {set: set, abc.Set: set, abc.MutableSet: set, frozenset: frozenset}
_DICTS: frozenset[Any] = frozenset({dict, abc.Mapping, abc.MutableMapping})
#: Types whose content is not in the fields of a dataclass that extends them.
_WITH_CONTENT = (list, tuple, dict, set, frozenset, deque, str, bytes, bytearray, int, float, complex)
_ADVICE = 'pass the plain data that it is made from, in a dataclass, or use codec="pickle" for this function'


class Builder:
    """Makes the JSON types of the annotations of one function. Records are made once, also if they contain themselves.

    Unions are checked by `finish`, because their records may not have their fields before.
    """

    def __init__(self, names: typing.Mapping[str, Any] | None = None) -> None:
        self._names = dict(names or {})  #: local names, for the annotations of records that are texts
        self._made: dict[Any, Shape] = {}
        self._unions: list[tuple[str, list[Shape]]] = []
        self._variables: dict[Any, Any] = {}

    def shape(self, annotation: Any) -> Shape:
        """Return the JSON type of an annotation. Raises Unsupported, and NameError for a text that names nothing."""
        annotation = (
            self._variables.get(annotation, annotation) if isinstance(annotation, typing.TypeVar) else annotation
        )
        if annotation in (Any, object):
            return _ANY
        try:
            plain = _SCALARS.get(annotation)
        except TypeError:
            raise Unsupported(f"{annotation!r} is no type, so it has no JSON form") from None
        return plain or self._composed(annotation)

    def finish(self) -> None:
        """Check the unions. Raises Unsupported."""
        for name, members in self._unions:
            check_members(name, members)

    def _composed(self, annotation: Any) -> Shape:
        origin, arguments = get_origin(annotation) or annotation, get_args(annotation)
        if origin is typing.Annotated:
            return constrained(self.shape(arguments[0]), annotation)
        if origin in (typing.Union, types.UnionType):
            return self._union(annotation, arguments)
        if origin is typing.Literal:
            return literal_shape(shown(annotation), arguments)
        if isinstance(annotation, typing.NewType):
            return self.shape(annotation.__supertype__)
        if type(origin).__name__ == "TypeAliasType":  # Python 3.12
            return self.shape(origin.__value__)
        container = self._container(annotation, origin, arguments)
        return container or self._class(annotation, origin, arguments)

    def _union(self, annotation: Any, arguments: tuple[Any, ...]) -> Shape:
        members = [self.shape(each) for each in arguments]
        self._unions.append((shown(annotation), members))
        return Union(shown(annotation), members)

    def _container(self, annotation: Any, origin: Any, arguments: tuple[Any, ...]) -> Shape | None:
        name = shown(annotation)
        if origin in _LISTS:
            return Listed(name, list, self.shape(*(arguments or (Any,))))
        if origin in _SETS:
            return Set(name, _SETS[origin], self.shape(*(arguments or (Any,))))
        if origin in _DICTS:
            key, value = arguments or (str, Any)
            return Mapping(name, self.shape(key), self.shape(value))
        if origin is not tuple:
            return None
        if len(arguments) == 2 and arguments[1] is ...:
            return Listed(name, tuple, self.shape(arguments[0]))
        if not arguments and annotation is tuple:
            return Listed(name, tuple, _ANY)
        return Fixed(name, [self.shape(each) for each in arguments])

    # --- classes

    def _class(self, annotation: Any, origin: Any, arguments: tuple[Any, ...]) -> Shape:
        if not isclass(origin):
            raise Unsupported(f"{shown(annotation)} has no JSON form")
        made = self._made.get(annotation)
        if made is not None:
            return made
        if issubclass(origin, Enum):
            return enum_shape(origin)
        foreign = foreign_shape(annotation if isclass(annotation) else origin)
        if foreign is not None:
            return foreign
        outer, self._variables = self._variables, self._variables | self._given(origin, arguments)
        try:
            return self._record(annotation, origin)
        finally:
            self._variables = outer

    def _given(self, origin: Any, arguments: tuple[Any, ...]) -> dict[Any, Any]:
        """Return the arguments of a generic class by its type variables."""
        resolved = [self._variables.get(each, each) if isinstance(each, typing.TypeVar) else each for each in arguments]
        return dict(zip(getattr(origin, "__parameters__", ()), resolved, strict=False))

    def _record(self, annotation: Any, origin: type[Any]) -> Shape:
        if is_dataclass(origin):
            _refuse_content(origin)
            shape: Record = Dataclass(origin)
            self._made[annotation] = shape
            shape.fields = self._dataclass_fields(origin)
            return shape
        if issubclass(origin, dict) and hasattr(origin, "__required_keys__"):  # also a TypedDict of typing_extensions
            shape = Typed(origin)
            self._made[annotation] = shape
            shape.fields = self._keys(origin)
            return shape
        if issubclass(origin, tuple) and hasattr(origin, "_field_defaults"):
            named = self._made[annotation] = Named(origin)
            named.fields = self._members(origin)
            return named
        raise Unsupported(f"{shown(annotation)} has no JSON form: {_ADVICE}")

    def _hints(self, kind: type) -> dict[str, Any]:
        try:
            return get_type_hints(kind, localns=self._names or None, include_extras=True)
        except NameError as error:
            raise NameError(f"{error} (an annotation of {kind.__qualname__})", name=error.name) from None

    def _dataclass_fields(self, kind: Any) -> dict[str, Field]:
        hints, found = self._hints(kind), {}
        for field in fields(kind):
            if not field.init:
                raise Unsupported(f"{kind.__qualname__}.{field.name} is no argument of the constructor (init=False)")
            shape = self.shape(hints[field.name])
            has_default = field.default is not MISSING
            is_required = not has_default and field.default_factory is MISSING
            found[field.name] = _with_default(shape, is_required, field.default if has_default else MISSING)
        lacking = [name for name, hint in hints.items() if type(hint).__name__ == "InitVar"]
        if lacking:
            raise Unsupported(f"{kind.__qualname__}.{lacking[0]} is an InitVar, which objects do not keep")
        return found

    def _keys(self, kind: Any) -> dict[str, Field]:
        found = {}
        for name, hint in self._hints(kind).items():
            is_required = name in kind.__required_keys__  # does not know marks in annotations that are texts
            while (origin := get_origin(hint)) in (typing.Required, typing.NotRequired) or "ReadOnly" in str(origin):
                is_required = is_required if "ReadOnly" in str(origin) else origin is typing.Required
                (hint,) = get_args(hint)
            found[name] = Field(self.shape(hint), is_required)
        return found

    def _members(self, kind: Any) -> list[tuple[str, Field]]:
        hints, defaults = self._hints(kind), kind._field_defaults
        lacking = [name for name in kind._fields if name not in hints]
        if lacking:
            raise Unsupported(f"{kind.__qualname__}.{lacking[0]} has no annotation: use typing.NamedTuple")
        return [
            (name, _with_default(self.shape(hints[name]), name not in defaults, defaults.get(name, MISSING)))
            for name in kind._fields
        ]


def _refuse_content(kind: type) -> None:
    """Raise Unsupported if a dataclass extends a type whose content would be lost."""
    base = next((base for base in kind.__mro__ if base in _WITH_CONTENT), None)
    if base is not None:
        raise Unsupported(
            f"{kind.__qualname__} extends {base.__name__}, whose content is in none of its fields: make it a field"
        )


def _with_default(shape: Shape, is_required: bool, default: Any) -> Field:
    """Return a field, whose default is part of the schema if it can be written."""
    if default is MISSING:
        return Field(shape, is_required)
    try:
        return Field(shape, is_required, shape.encode(default), True)
    except Misfit:
        return Field(shape, is_required)


def shown(annotation: Any) -> str:
    """Return the text of an annotation, for errors."""
    if isclass(annotation) and not get_args(annotation):
        return annotation.__qualname__
    return str(annotation).replace("typing.", "").replace("collections.abc.", "")
