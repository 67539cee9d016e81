"""Objects to bytes and back: what travels, how promises are found and filled, and what the errors say."""

import copyreg
import pickle
import struct
import subprocess
import sys
import threading
from array import array
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pandas as pd
import pytest

from dagorama.api.contract import LARGE, PARTS, REFS
from dagorama.errors import BrokerUnavailable, NotPicklable, ValueNotReadable
from dagorama.models.promise import DAGPromise
from dagorama.values.assembly import assemble, decode_promised
from dagorama.values.codec import decode, decode_call, encode, encode_call
from dagorama.values.envelope import large_of, large_values, references
from dagorama.values.out_of_band import MOST, Buffer


def promise(number: int, origin: int = 0) -> DAGPromise[Any]:
    return DAGPromise(identifier=UUID(int=(origin << 32) + number))


class Point(NamedTuple):
    x: Any
    y: Any


Pair = namedtuple("Pair", "left right")  # the old way is to work as well


@dataclass
class Config:
    name: str
    handlers: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Frozen:
    inner: Any


class Plain:
    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.me = self


class Slotted:
    __slots__ = ("inner",)

    def __init__(self, inner: Any) -> None:
        self.inner = inner


class Leaves(list[Any]):
    """A list with attributes in addition to its items."""

    label: Any = None


def same(value: object) -> Any:
    return decode(encode(value).envelope)


# --- plain values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [0, "", [], {}, (), False, None, b"", 0.0, 1 << 80, "\ud800", [None], (1, "a", {"b": {2}}), frozenset({1}), ...],
    ids=repr,
)
def test_a_plain_value_comes_back_as_it_was(value: object) -> None:
    for again in (same(value), decode_call(encode_call((value,), {"key": value}).envelope)[0][0]):
        assert again == value
        assert type(again) is type(value)


def test_an_array_and_a_data_frame_come_back_as_they_were() -> None:
    np.testing.assert_array_equal(same(np.arange(12).reshape(3, 4)), np.arange(12).reshape(3, 4))
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    pd.testing.assert_frame_equal(same([frame])[0], frame)


@pytest.mark.parametrize(
    "value",
    [
        Point(1, 2),
        Pair(1, 2),
        Counter("abca"),
        defaultdict(list, {"a": [1]}),
        OrderedDict(b=1, a=2),
        deque([1, 2], maxlen=2),
        frozenset({1, 2}),
        Config("main", [1]),
        Frozen((1,)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_container_keeps_its_class(value: Any) -> None:
    again = same(value)
    assert again == value
    assert type(again) is type(value)
    assert getattr(again, "maxlen", None) == getattr(value, "maxlen", None)
    assert getattr(again, "default_factory", None) == getattr(value, "default_factory", None)


def test_what_contains_itself_still_does() -> None:
    items: list[Any] = [1]
    items.append(items)
    again = same(items)
    assert again[1] is again
    assert same(Plain(1)).me.me.inner == 1


def test_sharing_inside_a_value_is_kept() -> None:
    part = [1]
    again = same([part, {"a": part}])
    assert again[0] is again[1]["a"]


def test_each_reader_gets_objects_of_its_own() -> None:
    envelope = encode([[1]]).envelope
    assert decode(envelope) is not decode(envelope)


def test_the_arguments_of_a_call_come_back() -> None:
    assert decode_call(encode_call((1, [2]), {"three": {3}}).envelope) == ((1, [2]), {"three": {3}})
    assert decode_call(encode_call((), {}).envelope) == ((), {})


class Registered:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __reduce__(self) -> Any:
        raise AssertionError("copyreg goes first")


def test_what_is_registered_with_copyreg_is_pickled_that_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(copyreg.dispatch_table, Registered, lambda value: (Registered, (value.inner,)))
    encoded = encode(Registered([promise(1)]))
    assert [found.identifier.int for found in encoded.promises] == [1]
    again: Any = decode(encoded.envelope, ["value"])
    assert again.inner == ["value"]


# --- what only cloudpickle can -----------------------------------------------------------------------------------


def test_lambdas_closures_and_local_classes_travel() -> None:
    offset = 3

    class Local:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

    value: Any = decode(encode([lambda x: x + offset, Local(promise(1))]).envelope, ["filled"])
    assert value[0](4) == 7
    assert (type(value[1]).__name__, value[1].inner) == ("Local", "filled")


def test_what_lives_in_main_is_read_in_a_process_without_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from dagorama.values.codec import encode\n"
        "class Task:\n"
        "    def __init__(self, n): self.n = n\n"
        "    def double(self): return helper(self.n)\n"
        "def helper(n): return 2 * n\n"
        "sys.stdout.buffer.write(encode([Task(21)]).envelope)\n"
    )
    task = decode(subprocess.check_output([sys.executable, str(script)]))
    assert task[0].double() == 42  # type: ignore[index]  # an object, for the checker


def test_cloudpickle_is_not_loaded_for_what_pickle_can() -> None:
    script = (
        "import sys\n"
        "from dagorama.values.codec import decode, encode, encode_call\n"
        "decode(encode({'a': [1]}).envelope), encode_call((1,), {})\n"
        "print('cloudpickle' in sys.modules, 'dagorama.values.diagnostics' in sys.modules)\n"
    )
    assert subprocess.check_output([sys.executable, "-c", script]).split() == [b"False", b"False"]


# --- promises ----------------------------------------------------------------------------------------------------


def leaves() -> Leaves:
    made = Leaves([promise(1)])
    made.label = promise(2)
    return made


PLACES: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "itself": (promise(1), lambda value: value),
    "list": ([0, promise(1)], lambda value: value[1]),
    "tuple": ((promise(1),), lambda value: value[0]),
    "dict value": ({"a": promise(1)}, lambda value: value["a"]),
    "dict key": ({promise(1): 1}, lambda value: next(iter(value))),
    "set": ({promise(1)}, lambda value: value.pop()),
    "frozenset": (frozenset({promise(1)}), lambda value: next(iter(value))),
    "namedtuple": (Point(1, promise(1)), lambda value: value.y),
    "Counter": (Counter({"a": promise(1)}), lambda value: value["a"]),
    "defaultdict": (defaultdict(list, {"a": promise(1)}), lambda value: value["a"]),
    "OrderedDict": (OrderedDict(a=promise(1)), lambda value: value["a"]),
    "deque": (deque([promise(1)]), lambda value: value[0]),
    "dataclass": (Config("x", [promise(1)]), lambda value: value.handlers[0]),
    "frozen dataclass": (Frozen(promise(1)), lambda value: value.inner),
    "object": (Plain({"deep": promise(1)}), lambda value: value.me.inner["deep"]),
    "slots": (Slotted([promise(1)]), lambda value: value.inner[0]),
    "partial": (partial(print, promise(1)), lambda value: value.args[0]),
    "exception": (ValueError(promise(1)), lambda value: value.args[0]),
    "object array": (np.array([promise(1), None], dtype=object), lambda value: value[0]),
}


@pytest.mark.parametrize(("value", "read"), PLACES.values(), ids=PLACES)
def test_a_promise_is_found_and_filled_wherever_it_stands(value: Any, read: Callable[[Any], Any]) -> None:
    encoded = encode(value)
    assert encoded.refs == [promise(1).node_id] == references(encoded.envelope)
    again = decode(encoded.envelope, ["the value"])
    assert type(again) is (str if isinstance(value, DAGPromise) else type(value))
    assert read(again) == "the value"


def test_promises_beside_the_items_of_a_subclass_are_found() -> None:
    again: Any = decode(encode(leaves()).envelope, ["item", "label"])
    assert (list(again), again.label) == (["item"], "label")


def test_a_promise_that_stands_twice_is_named_once_and_its_value_is_shared() -> None:
    twice = promise(1)
    encoded = encode_call((twice, twice), {"again": promise(1)})
    assert references(encoded.envelope) == [twice.node_id]
    (first, second), named = decode_call(encoded.envelope, [["value"]])
    assert first is second is named["again"]


def test_references_come_in_the_order_of_the_fill_whatever_their_origins() -> None:
    mixed = [promise(5, 1), promise(2, 2), promise(4, 1), promise(3, 1), promise(2**32 - 1, 2)]
    encoded = encode(mixed)
    assert [found.node_id for found in encoded.promises] == list(encoded.refs) == references(encoded.envelope)
    assert list(encoded.refs) == [found.node_id for found in mixed]
    assert decode(encoded.envelope, list("abcde")) == list("abcde")


def test_an_envelope_is_laid_out_as_documented() -> None:
    assert encode([1]).envelope == b"\x01\x00" + pickle.dumps([1], 5)
    table = struct.pack("<I12sIII12sII", 2, bytes(11) + b"\x01", 2, 5, 6, bytes(11) + b"\x02", 1, 7)
    envelope = encode([promise(5, 1), promise(6, 1), promise(7, 2)]).envelope
    assert envelope[:2] == bytes([1, REFS])
    assert envelope[2 : 2 + len(table)] == table


def test_values_without_promises_have_no_references() -> None:
    encoded = encode([1])
    assert (list(encoded.refs), list(encoded.promises), references(encoded.envelope)) == ([], [], [])


class PicklesInside:
    """One that pickles a part of itself on its own."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getstate__(self) -> bytes:
        return pickle.dumps(self.inner)

    def __setstate__(self, state: bytes) -> None:
        self.inner = pickle.loads(state)


def test_a_pickle_inside_a_pickle_keeps_its_promises_as_promises() -> None:
    again: Any = decode(encode([PicklesInside(promise(1)), promise(2)]).envelope, ["value"])
    assert again[0].inner == promise(1)
    assert again[1] == "value"


def test_a_hundred_thousand_promises_in_one_value() -> None:
    encoded = encode([promise(number) for number in range(100_000)])
    assert len(references(encoded.envelope)) == 100_000
    assert decode(encoded.envelope, range(100_000)) == list(range(100_000))


def test_a_promise_with_a_long_history_costs_what_any_costs() -> None:
    link: Any = None
    for number in range(100_000):
        link = DAGPromise._made(bytes(12), number, bytes(16), "m:C.f", (link,), {}, ("a.py", 1))
    assert len(encode(link).envelope) == len(encode(promise(99_999)).envelope)


def test_promises_are_collected_apart_in_each_thread() -> None:
    found: dict[int, Any] = {}

    def work(origin: int) -> None:
        values = [encode([promise(number, origin), [1]]) for number in range(300)]
        found[origin] = all(list(v.refs) == [promise(n, origin).node_id] for n, v in enumerate(values))

    threads = [threading.Thread(target=work, args=(origin,)) for origin in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(4), True)


# --- values of values --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_chain_of_a_hundred_thousand_values_is_assembled_without_recursion() -> None:
    last = 100_000
    envelopes = {number: encode([promise(number + 1)]).envelope for number in range(last)}
    envelopes[last] = encode("end").envelope
    value: Any = decode_promised(0, envelopes, {number: [number + 1] for number in range(last)})
    for _ in range(last):
        (value,) = value
    assert value == "end"


def test_a_promise_returned_through_a_thousand_nodes_is_its_value() -> None:
    envelopes = {promise(n).node_id: encode(promise(n + 1)).envelope for n in range(1000)}
    envelopes[promise(1000).node_id] = encode({"a": 1}).envelope
    assert decode_promised(promise(0).node_id, envelopes) == {"a": 1}


COUNTED: list[str] = []


class Counting:
    def __setstate__(self, state: dict[str, str]) -> None:
        COUNTED.append(state["name"])

    def __init__(self, name: str) -> None:
        self.name = name


def test_each_value_is_unpickled_once_and_shared_within_one_call() -> None:
    COUNTED.clear()
    envelopes = {
        "left": encode([promise(1)]).envelope,
        "right": encode({"a": promise(1)}).envelope,
        "shared": encode(Counting("shared")).envelope,
    }
    refs = {"left": ["shared"], "right": ["shared"]}
    left, right, again = assemble(["left", "right", "left"], envelopes, refs)
    assert left is again
    assert left[0] is right["a"]  # type: ignore[index]  # objects, for the checker
    assert COUNTED == ["shared"]
    assert assemble(["left"], envelopes, refs)[0] is not left


def test_a_wide_value_of_values_is_assembled() -> None:
    envelopes = {number: encode(number).envelope for number in range(1, 50_001)}
    envelopes[0] = encode([promise(number) for number in range(1, 50_001)]).envelope
    assert decode_promised(0, envelopes, {0: list(range(1, 50_001))}) == list(range(1, 50_001))


def test_values_that_contain_each_other_are_refused() -> None:
    envelopes = {"a": encode([promise(1)]).envelope, "b": encode([promise(1)]).envelope}
    with pytest.raises(ValueNotReadable, match="contains itself"):
        decode_promised("a", envelopes, {"a": ["b"], "b": ["a"]})


def test_a_value_that_was_not_sent_is_named() -> None:
    with pytest.raises(ValueNotReadable, match=promise(9).node_id.hex()):
        decode_promised(promise(1).node_id, {promise(1).node_id: encode([promise(9)]).envelope})


# --- large values ------------------------------------------------------------------------------------------------


@pytest.fixture
def store() -> "Store":
    return Store()


class Store(dict[bytes, bytes]):
    """What keeps large pickles."""

    def put(self, data: Buffer) -> bytes:
        digest = sha256(data).digest()
        self[digest] = bytes(data)
        return digest


def test_a_pickle_from_the_bound_on_is_kept_elsewhere(store: Store) -> None:
    bound = len(pickle.dumps(b"x" * 1000, 5))
    small = encode(b"x" * 999, large_from=bound, put_large=store.put)
    assert (large_of(small.envelope), len(store)) == (None, 0)
    large = encode(b"x" * 1000, large_from=bound, put_large=store.put)
    assert large_of(large.envelope) == (next(iter(store)), bound)
    assert len(large.envelope) < 50
    assert decode(large.envelope, get_large=store.__getitem__) == b"x" * 1000


def test_a_large_value_keeps_its_references_at_hand(store: Store) -> None:
    encoded = encode_call(("x" * 1000, promise(3)), {}, large_from=100, put_large=store.put)
    assert encoded.envelope[1] == LARGE | REFS
    assert references(encoded.envelope) == [promise(3).node_id]
    assert decode_call(encoded.envelope, [7], get_large=store.__getitem__) == (("x" * 1000, 7), {})
    assert large_of(encoded.envelope) == (next(iter(store)), len(next(iter(store.values()))))


def test_a_large_value_may_come_as_any_bytes(store: Store) -> None:
    encoded = encode([1] * 100, large_from=10, put_large=store.put)
    for kind in (bytearray, memoryview):
        assert decode(encoded.envelope, get_large=lambda digest, kind=kind: kind(store[digest])) == [1] * 100  # type: ignore[misc]


def test_large_values_are_assembled(store: Store) -> None:
    inner = encode("y" * 1000, large_from=10, put_large=store.put).envelope
    value = decode_promised("a", {"a": encode([promise(1)]).envelope, "b": inner}, {"a": ["b"]}, get_large=store.get)  # type: ignore[arg-type]
    assert value == ["y" * 1000]


def test_other_bytes_than_the_hash_says_are_refused(store: Store) -> None:
    encoded = encode("x" * 100, large_from=10, put_large=store.put)
    data = next(iter(store.values()))
    with pytest.raises(ValueNotReadable, match="other bytes were received"):
        decode(encoded.envelope, get_large=lambda _: data[:-1] + b"!")
    with pytest.raises(ValueNotReadable, match="cannot be fetched"):
        decode(encoded.envelope)


def test_a_broker_that_does_not_answer_is_no_fault_of_the_value(store: Store) -> None:
    def unavailable(_: Buffer) -> bytes:
        raise BrokerUnavailable("nobody there")

    encoded = encode_call(("x" * 100,), {}, large_from=10, put_large=store.put)
    for read in (decode, decode_call):
        with pytest.raises(BrokerUnavailable):
            read(encoded.envelope, get_large=unavailable)
    with pytest.raises(BrokerUnavailable):
        encode("x" * 100, large_from=10, put_large=unavailable)


# --- what cannot be pickled --------------------------------------------------------------------------------------


class WithoutLock:
    """Has a lock and knows not to pickle it."""

    def __init__(self, other: Any) -> None:
        self.lock = threading.Lock()
        self.other = other

    def __getstate__(self) -> dict[str, Any]:
        return {"other": self.other}


class Refusing:
    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


def numbers() -> Iterator[int]:
    yield 1


def work(self: Any, config: Any, *files: Any, limit: Any = 1, **options: Any) -> None:
    """A method as it is written; what it is called with has no `self`."""


def closing_over(captured: Any) -> Callable[[], Any]:
    return lambda: captured


LOCK = threading.Lock()
UNPICKLABLE: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "argument": ((LOCK,), {}, "argument 'config' cannot be pickled: a lock stays in its process"),
    "list in attribute": ((Config("x", [1, 2, LOCK]),), {}, r"argument 'config'.handlers\[2\] cannot be pickled"),
    "star": ((1, 2, numbers()), {}, r"argument 'files'\[1\] cannot be pickled: a generator .* pass a list"),
    "keyword": ((1,), {"limit": {"a": sys.stdout}}, r"argument 'limit'\['a'\] cannot be pickled: an open file"),
    "keywords": ((1,), {"other": LOCK}, r"argument 'options'\['other'\] cannot"),
    "namedtuple": ((Point(1, LOCK),), {}, "argument 'config'.y cannot"),
    "set": (({numbers()},), {}, "argument 'config', its member <generator"),
    "dict key": (({LOCK: 1},), {}, "argument 'config', its key <unlocked"),
    "deque": ((deque([1, LOCK]),), {}, r"argument 'config'\[1\] cannot"),
    "closure": ((closing_over(LOCK),), {}, "argument 'config', its variable 'captured' cannot"),
    "partial": ((partial(print, LOCK),), {}, r"argument 'config'.args\[0\] cannot"),
    "bound method": ((WithoutLock(LOCK).__getstate__,), {}, "argument 'config'.__self__.other cannot"),
    "slots": ((Slotted(LOCK),), {}, "argument 'config'.inner cannot"),
    "object": ((Plain([LOCK]),), {}, r"argument 'config'.inner\[0\] cannot"),
    "what is not pickled is not blamed": ((WithoutLock([LOCK]),), {}, r"argument 'config'.other\[0\] cannot"),
    "its own doing": (([Refusing()],), {}, r"argument 'config'\[0\] cannot .*Refusing.*RuntimeError: not me"),
    "exception": ((ValueError("x", LOCK),), {}, "argument 'config', a part of it cannot"),
}


@pytest.mark.parametrize(("args", "kwargs", "message"), UNPICKLABLE.values(), ids=UNPICKLABLE)
def test_what_cannot_be_pickled_is_named_by_its_place(args: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(NotPicklable, match=message):
        encode_call(args, kwargs, work)


@pytest.mark.parametrize("mode", ["r", "w+", "rb"])
def test_an_open_file_is_refused_and_not_replaced_by_a_copy(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "report.txt"
    path.touch()
    with path.open(mode) as file, pytest.raises(NotPicklable, match=r"'config' cannot be pickled: an open file"):
        encode_call((file,), {}, work)


def test_a_view_is_sent_only_if_its_items_are_its_bytes() -> None:
    assert decode(encode(memoryview(bytearray(b"abc"))[::2]).envelope) == b"ac"
    with pytest.raises(NotPicklable, match=r"the value\[0\] cannot be pickled: a memoryview .* pass its bytes"):
        encode([memoryview(array("d", [1.0]))])


def test_arguments_that_fit_no_parameter_are_numbered() -> None:
    with pytest.raises(NotPicklable, match="argument 2 cannot"):
        encode_call((1, LOCK), {}, None)
    with pytest.raises(NotPicklable, match="argument 2 cannot"):
        encode_call((1, LOCK), {}, lambda self: None)
    with pytest.raises(NotPicklable, match="argument 'other' cannot"):
        encode_call((), {"other": LOCK}, lambda self: None)


def test_a_result_that_cannot_be_pickled_is_named_as_the_result() -> None:
    with pytest.raises(NotPicklable, match=r"the result\['rows'\]\[1\] cannot be pickled: a lock"):
        encode({"rows": [1, LOCK]}, "result")


def test_the_reason_that_pickle_gave_is_kept() -> None:
    with pytest.raises(NotPicklable, match="cannot pickle") as raised:
        encode(LOCK)
    assert isinstance(raised.value.__cause__, TypeError)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_what_is_nested_too_deeply_is_said_to_be() -> None:
    with pytest.raises(NotPicklable, match="argument 'limit' is nested too deeply"):
        encode_call((1,), {"limit": nested(100_000)}, work)
    with pytest.raises(NotPicklable, match="the result is nested too deeply"):
        encode(nested(100_000), "result")


def test_a_cycle_with_something_unpicklable_is_diagnosed() -> None:
    config = Config("x")
    config.handlers += [config, {"again": config}, LOCK]
    with pytest.raises(NotPicklable, match=r"the value\.handlers\[2\] cannot"):
        encode(config)


class Hostile:
    """Fails at whatever it is asked."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise KeyError("never")

    def __repr__(self) -> str:
        raise ValueError("nor this")

    def __hash__(self) -> int:
        return 1


def test_looking_for_the_place_survives_hostile_objects() -> None:
    with pytest.raises(NotPicklable, match="the value, its member <Hostile> cannot"):
        encode({Hostile()})


def test_stopping_the_program_is_not_taken_for_a_failure() -> None:
    class Stopping:
        def __reduce__(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode([Stopping()])


# --- what cannot be read -----------------------------------------------------------------------------------------


UNHASHABLE: dict[str, tuple[Any, str]] = {
    "set": ({promise(1)}, "argument 'config': .* a member of a set there, .* an unhashable list"),
    "frozenset": ([frozenset({promise(1)})], r"argument 'config'\[0\]: .* a member of a set"),
    "dict key": (Config("x", [{promise(1): 2}]), r"argument 'config'.handlers\[0\]: .* a key of a dict"),
    "tuple in a set": ({"a": {(1, promise(1))}}, r"argument 'config'\['a'\]: .* a member of a set"),
    "Counter key": (Plain(Counter([promise(1)])), "argument 'config'.inner: .* a key of a dict"),
}


@pytest.mark.parametrize(("config", "message"), UNHASHABLE.values(), ids=UNHASHABLE)
def test_an_unhashable_value_cannot_fill_a_set_or_a_key_and_the_place_is_named(config: Any, message: str) -> None:
    envelope = encode_call((config,), {}, work).envelope
    with pytest.raises(ValueNotReadable, match=message):
        decode_call(envelope, [[1]], work)


def test_an_unhashable_value_in_a_result_is_named_too() -> None:
    with pytest.raises(ValueNotReadable, match=r"the result\[1\]: .* an unhashable dict"):
        decode(encode([1, {promise(1)}]).envelope, [{}], what="result")


class Hashes:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __reduce__(self) -> Any:
        return hash, (self.inner,)


def test_an_unhashable_value_in_no_container_keeps_the_reason() -> None:
    with pytest.raises(ValueNotReadable, match="unhashable type: 'list'"):
        decode(encode([Hashes(promise(1))]).envelope, [[1]])


def bad_envelopes() -> dict[str, tuple[bytes, str]]:
    refs = encode([promise(1), promise(2)]).envelope
    return {
        "empty": (b"", "does not begin like an envelope"),
        "one byte": (b"\x01", "does not begin like an envelope"),
        "another version": (b"\x02\x00N.", "does not begin like an envelope"),
        "unknown flags": (b"\x01\x40N.", "does not begin like an envelope"),
        "a bare pickle": (pickle.dumps(1), "does not begin like an envelope"),
        "signed": (b"\x01\x01N.", "signature has not been checked"),
        "no body": (b"\x01\x00", "EOFError"),
        "garbage": (b"\x01\x00garbage", "cannot be unpickled"),
        "half a table": (refs[:12], "cut short|cannot be"),
        "half a pickle": (refs[:-5], "cannot be unpickled"),
        "half a large one": (b"\x01\x02abc", "cannot be"),
        "no such module": (b"\x01\x00cno_such_module\nthing\n.", "its module cannot be imported here.*no_such_module"),
        "no such name": (b"\x01\x00cpickle\nno_such_thing\n.", "cannot be unpickled.*no_such_thing"),
        "a promise without a table": (
            b"\x01\x00cdagorama.models.stored\npromise_value\n(I0\ntR.",
            "holds the promise 0",
        ),
    }


@pytest.mark.parametrize(("envelope", "message"), bad_envelopes().values(), ids=bad_envelopes())
def test_bytes_that_are_no_value_are_refused_with_the_reason(envelope: bytes, message: str) -> None:
    with pytest.raises(ValueNotReadable, match=message):
        decode(envelope, [1, 2] if envelope[1:2] == b"\x04" else None)


@pytest.mark.parametrize("fill", [None, [], [1], [1, 2, 3]])
def test_as_many_values_are_needed_as_there_are_promises(fill: list[int] | None) -> None:
    with pytest.raises(ValueNotReadable, match=f"holds 2 promises and {len(fill or [])} values"):
        decode(encode([promise(1), promise(2)]).envelope, fill)


@pytest.mark.parametrize(
    ("look", "envelope"),
    [
        (references, b""),
        (references, b"\x07\x00"),
        (references, b"\x01\x04\x01\x00"),
        (references, b"\x01\x04\x01\x00\x00\x00" + bytes(12) + b"\xff\xff\x00\x00"),
        (large_of, b""),
        (large_of, b"\x01\x02abc"),
        (large_of, b"\x01\x06\x01\x00\x00\x00"),
    ],
)
def test_looking_into_bytes_that_are_no_envelope_is_refused(look: Callable[[bytes], object], envelope: bytes) -> None:
    with pytest.raises(ValueNotReadable):
        look(envelope)


def test_a_result_is_no_call() -> None:
    with pytest.raises(ValueNotReadable, match="the arguments cannot be"):
        decode_call(encode(5).envelope)


class Unreadable:
    def __reduce__(self) -> Any:
        return int, ("not a number",)


def test_a_value_whose_class_refuses_to_be_read_says_why() -> None:
    with pytest.raises(ValueNotReadable, match=r"the result cannot be unpickled .*ValueError.*not a number"):
        decode(encode(Unreadable()).envelope, what="result")


# --- large parts


def kept_apart(store: Store, value: object, bound: int = 1000) -> bytes:
    return encode(value, large_from=bound, put_large=store.put).envelope


def back(store: Store, value: object, bound: int = 1000) -> Any:
    return decode(kept_apart(store, value, bound), get_large=store.__getitem__)


def test_large_parts_are_kept_under_their_own_bytes(store: Store) -> None:
    array, raw = np.arange(1000), b"r" * 5000
    envelope = kept_apart(store, {"array": array, "raw": [raw, 1], "name": "n"})
    assert set(store) == {sha256(array.tobytes()).digest(), sha256(raw).digest()} == set(large_values(envelope))
    assert large_of(envelope) is None
    assert len(envelope) < 500


def test_what_is_left_is_kept_apart_too_where_it_is_still_large(store: Store) -> None:
    value = ["t" * 5000, b"r" * 5000]
    envelope = kept_apart(store, value)
    large = large_of(envelope)
    assert large is not None
    assert large_values(envelope) == [large[0], sha256(b"r" * 5000).digest()]
    assert decode(envelope, get_large=store.__getitem__) == value


def test_parts_keep_their_kind(store: Store) -> None:
    value = [b"b" * 2000, bytearray(b"a" * 2000), np.ones((30, 50)), np.asfortranarray(np.ones((30, 50)))]
    raw, changing, array, fortran = back(store, value)
    assert (type(raw), raw) == (bytes, value[0])
    assert (type(changing), changing) == (bytearray, value[1])
    assert (array == value[2]).all()
    assert fortran.flags.f_contiguous


def test_an_array_arrives_as_writable_as_it_was(store: Store) -> None:
    array = np.arange(1000)
    arrived = back(store, array)
    arrived[0] = 5
    assert (array[0], arrived[1]) == (0, 1)
    array.flags.writeable = False
    assert not back(store, array).flags.writeable


def test_a_table_of_large_columns_arrives_as_it_was(store: Store) -> None:
    table = pd.DataFrame({"number": np.arange(5000), "text": ["x"] * 5000})
    pd.testing.assert_frame_equal(back(store, table), table)


def test_a_part_that_stands_in_two_places_is_stored_once_and_is_one_object(store: Store) -> None:
    changing, raw, array = bytearray(b"a" * 2000), b"b" * 2000, np.zeros(1000)
    first, second, third, *rest = back(store, [changing, changing, {"deep": changing}, raw, raw, array, array])
    assert len(store) == 3
    assert first is second is third["deep"]
    assert rest[2] is rest[3]


def test_a_value_with_large_parts_may_contain_itself(store: Store) -> None:
    value: list[Any] = [b"b" * 2000]
    value.append(value)
    arrived = back(store, value)
    assert arrived[1] is arrived
    assert arrived[0] == b"b" * 2000


def test_promises_and_large_parts_stand_beside_each_other(store: Store) -> None:
    arguments = ([b"b" * 2000, promise(1), np.zeros(1000), {"again": promise(1)}], promise(2))
    encoded = encode_call(arguments, {"key": promise(3)}, large_from=1000, put_large=store.put)
    assert encoded.envelope[1] == REFS | PARTS
    assert references(encoded.envelope) == [promise(number).node_id for number in (1, 2, 3)]
    args, kwargs = decode_call(encoded.envelope, ["one", "two", "three"], get_large=store.__getitem__)
    assert (args[0][1], args[0][3], args[1], kwargs) == ("one", {"again": "one"}, "two", {"key": "three"})  # type: ignore[index]


def test_code_from_main_travels_with_large_parts(store: Store) -> None:
    factor = np.full(1000, 3)
    arrived = back(store, [lambda number: (number * factor)[0], b"b" * 2000])
    assert arrived[0](2) == 6
    assert arrived[1] == b"b" * 2000
    assert len(store) >= 2


def test_small_values_are_pickled_once(store: Store) -> None:
    seen = []

    class Counted:
        def __reduce__(self) -> Any:
            seen.append(1)
            return int, (7,)

    assert decode(kept_apart(store, [Counted()])) == [7]
    assert len(seen) == 1
    assert not store


def test_what_cannot_be_pickled_leaves_nothing_in_the_store(store: Store) -> None:
    with pytest.raises(NotPicklable, match=r"the value\[1\]"):
        kept_apart(store, [b"b" * 2000, threading.Lock()])
    assert not store


def test_a_part_that_was_exchanged_is_refused(store: Store) -> None:
    for value in ([b"b" * 2000], np.arange(1000), [bytearray(2000)]):
        envelope = kept_apart(store, value)
        for answer in (b"x" * 2000, b"", b"b" * 1999):
            with pytest.raises(ValueNotReadable, match="other bytes were received"):
                decode(envelope, get_large=lambda _, answer=answer: answer)  # type: ignore[misc]
        with pytest.raises(ValueNotReadable, match="cannot be fetched"):
            decode(envelope)


@pytest.mark.parametrize("cut", [1, 3, 4, 40])
def test_a_table_of_parts_that_is_cut_short_is_refused(store: Store, cut: int) -> None:
    envelope = kept_apart(store, b"b" * 2000)
    for broken in (envelope[:-cut], envelope[:-4] + b"\xff\xff\xff\x7f", envelope[:2]):
        with pytest.raises(ValueNotReadable):
            decode(broken, get_large=store.get)  # type: ignore[arg-type]
        with pytest.raises(ValueNotReadable):
            large_values(envelope[:2])


def test_more_parts_than_a_table_may_have_stay_in_the_pickle(store: Store) -> None:
    value = [bytes([number % 256, number // 256]) * 10 for number in range(MOST + 5)]
    assert back(store, value, 20) == value
    assert len(store) == MOST + 1
