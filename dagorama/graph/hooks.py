"""The failure hook of a class of definitions, and its call as the broker keeps it until an instance fails.

The rule: the call is signed when the instance is started, for this instance alone; a definition without a hook costs
nothing.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from dagorama.api import broker_pb2
from dagorama.api.contract import LARGEST_HOOK
from dagorama.graph.constructor_arguments import constructor_bytes
from dagorama.user_code.names import class_name
from dagorama.values.codec import encode_call
from dagorama.values.envelope import SIGNATURE_BYTES
from dagorama.values.signing import keyring

#: The attribute of functions that are decorated with `@on_failure`.
MARK = "_dagorama_on_failure"

_names: WeakKeyDictionary[type, str | None] = WeakKeyDictionary()


def find_hook(cls: type) -> None:
    """Find the failure hook of a new class, which may be inherited.

    Raises ValueError if there are two, if it is the entry point, or if a method without `@on_failure` hides it.
    """
    names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
    found = [name for name in names if _is_hook(getattr(cls, name, None))]
    if "entrypoint" in found:
        raise ValueError(
            f"{cls.__qualname__}.entrypoint is the entry point, so it cannot be the failure hook: decorate it with "
            "@dagorama, and another method with @on_failure"
        )
    for name in names:
        _refuse_hidden(cls, name)
    if len(found) > 1:
        raise ValueError(
            f"{cls.__qualname__} has the failure hooks {' and '.join(found)}: a definition has one; a subclass that "
            f"wants another one overrides {found[0]}"
        )
    _names[cls] = found[0] if found else None


def _is_hook(method: object) -> bool:
    return bool(getattr(method, MARK, False))


def _refuse_hidden(cls: type, name: str) -> None:
    """Raise ValueError if this attribute of a class hides the hook of a base; None removes it."""
    owners = [base for base in cls.__mro__ if name in vars(base)]
    last = vars(owners[0])[name]
    hidden = next((base for base in owners if _is_hook(vars(base)[name])), None)
    if hidden is None or last is None or _is_hook(last):
        return
    raise ValueError(
        f"{owners[0].__qualname__}.{name} hides the failure hook {hidden.__qualname__}.{name}, and is not one: "
        f"decorate it with @on_failure too, give it another name, or assign `{name} = None` to have no hook"
    )


def has_hook(cls: type) -> bool:
    """Return whether instances of a class have a failure hook."""
    return _names.get(cls) is not None


def hook_message(definition: object, role: bytes, owner: bytes) -> broker_pb2.FailureHook | None:
    """Return the hook of the instances of a definition, signed for `owner`, an instance or a schedule; None: none.

    Raises ValueError if the definition was constructed with too much.
    """
    cls = type(definition)
    name = _names.get(cls)
    if name is None:
        return None
    decorated: Any = getattr(cls, name)._dagorama_decorated
    spec, ring = decorated.spec(cls), keyring()
    envelope = encode_call((), {}, decorated.function, constructor=constructor_bytes(definition)).envelope
    if len(envelope) > LARGEST_HOOK - SIGNATURE_BYTES:
        raise ValueError(
            f"{class_name(cls)} has the failure hook {name} and was constructed with {len(envelope):,} bytes, and the"
            f" broker keeps at most {LARGEST_HOOK >> 10} KiB for it: pass the name of a file, or leave out the hook"
        )
    return broker_pb2.FailureHook(
        function=spec.to_message(ring.signs_under), arguments=ring.sign_hook(envelope, role, owner, spec.digest)
    )
