"""What the simulated user code does, and what it comes to when nothing goes wrong: drawn from the seed, by name."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Any

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import HOOK, hooked_arguments
from tests.simulation.loop import WALL

ALWAYS = 1_000
#: The own value of a node that has the value of another one from the cache.
FOUND = "found"
#: IDs of the signing key of workers and of most callers, and of the other ones.
SIGNING_KEY, _OTHER_KEY = b"signing1", b"signing2"
DEATHS = 3  #: that a node survives, and one less

_BOTH = pb.SharedLimit(name="both", rate=pb.Rate(starts=3, seconds=2.3), max_concurrency=2)

#: By name. `queue` and `taint` are crossed on purpose: neither follows from the other.
FUNCTIONS: dict[str, pb.Function] = {
    function.name: function
    for function in (
        pb.Function(name="plain", hash="h"),
        pb.Function(name="gpu", hash="h", taint="GPU", queue="plain"),
        pb.Function(name="tame", hash="h", queue="gpu"),
        pb.Function(name="quick", hash="h", queue="plain"),
        pb.Function(name="retries", hash="h", retry=pb.Retry(max_attempts=3, interval=0.4, base=2.0)),
        pb.Function(name="patient", hash="h", retry=pb.Retry(max_attempts=2, interval=6.0, base=1.0)),
        # Its neighbours in a child take it along when they die; that is not to fail it.
        pb.Function(name="async", hash="h", is_async=True, queue="plain", max_deaths=100),
        pb.Function(name="urgent", hash="h", queue="plain", priority=5),
        pb.Function(name="lazy", hash="h", queue="plain", priority=-5),
        pb.Function(name="limited", hash="h", max_concurrency=2),
        pb.Function(name="keyed", hash="h", max_concurrency=1),
        pb.Function(name="delayed", hash="h", delay=0.9),
        pb.Function(name="cached", hash="h", cached=True),
        pb.Function(name="hurried", hash="h", taint="TPU", queue_timeout=1.5),
        pb.Function(name="rated", hash="h", rate=pb.Rate(starts=2, seconds=1.7)),
        pb.Function(
            name="rated by key",
            hash="h",
            rate=pb.Rate(starts=1, seconds=1.1),
            rate_by_key=True,
            max_concurrency=2,
            concurrency_of_all=True,
        ),
        pb.Function(name="shares", hash="h", limit=_BOTH, retry=pb.Retry(max_attempts=2, interval=0.1, base=1.0)),
        pb.Function(name="shares too", hash="h", limit=_BOTH, queue="plain", is_async=True, max_deaths=100),
    )
}
#: Seconds for which a failed run of a function with a limit has its key paused.
PAUSE = 1.3
PAUSABLE = frozenset({"limited", "keyed", "rated", "rated by key", "shares", "shares too"})
_COMMON = ("plain", "plain", "gpu", "tame", "retries", "async", "urgent", "lazy")
_RARE = ("patient", "limited", "keyed", "delayed", "hurried")


@dataclass(slots=True)
class Program:
    """One node: what it runs, whom it waits for, and what happens when it runs."""

    name: str
    function: str
    sources: tuple[str, ...] = ()
    tolerates: tuple[str, ...] = ()
    key: str = ""
    seconds: float = 0.001
    fails: int = 0  #: runs that fail before one succeeds
    dies: int = 0  #: child processes that end while they run it
    children: list[Program] = field(default_factory=list)
    ahead: bool = False  #: its children are sent before its result
    returns: tuple[str, ...] = ()  #: promises in its value
    later: float = 0.0  #: seconds that its call delays it
    cache: str = ""  #: programs with the same one share a value
    at: float = 0.0  #: seconds since the beginning before which it does not start, as its call says


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a node comes to: the digest of its value with all promises kept; or whose failure it is."""

    value: str = ""
    failure: str = ""  #: type


class Plan:
    """All programs of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.programs: dict[str, Program] = {}

    def grow(self, prefix: str, count: int, earlier: list[str]) -> list[Program]:
        """Nodes of one run, in order; `earlier` are nodes that they may wait for."""
        chance = random.Random(f"{self.seed}/{prefix}")
        made: list[Program] = []
        shape = chance.random()
        if shape < 0.3:
            return self._draw_chain(chance, prefix, count + 2, earlier)
        if shape < 0.5:
            return self._draw_joins(chance, prefix, count + 4, earlier)
        for number in range(count):
            others = earlier + [program.name for program in made]
            made.append(self._draw(chance, f"{prefix}{number}", others, 0))
        return made

    def _draw(self, chance: random.Random, name: str, others: list[str], depth: int) -> Program:
        function = chance.choice(_COMMON if chance.random() < 0.75 else _RARE)
        program = self.programs[name] = Program(name, self._limited(name, function))
        if others and chance.random() < 0.6:
            program.sources = tuple(chance.sample(others, min(len(others), chance.choice((1, 1, 2, 3)))))
            program.tolerates = tuple(source for source in program.sources if chance.random() < 0.25)
        if function == "keyed":
            program.key = chance.choice(("odd", "even"))
        self._draw_delay(program)
        program.seconds = chance.choice((0.0005, 0.002, 0.01, 0.01, 0.1, 0.4, chance.choice((1.0, 3.0))))
        self._draw_trouble(chance, program)
        if depth < 2 and chance.random() < (0.3 if depth == 0 else 0.2):
            self._draw_children(chance, program, others, depth)
        elif others and chance.random() < 0.08:
            program.returns = (chance.choice(others),)
        self._draw_cache(program)
        return program

    def _draw_cache(self, program: Program) -> None:
        chance = random.Random(f"{self.seed}/{program.name}/cache")
        is_plain = program.function == "plain" and not (program.children or program.returns or program.fails)
        if is_plain and program.dies < DEATHS and chance.random() < 0.4:
            program.function, program.cache = "cached", chance.choice(("k0", "k1", "k2"))

    def _draw_chain(self, chance: random.Random, prefix: str, count: int, earlier: list[str]) -> list[Program]:
        """Quick nodes, each after the one before: they go along with their sources."""
        before = earlier[-1:]
        made: list[Program] = []
        for number in range(count):
            program = Program(f"{prefix}{number}", "quick", tuple(before), seconds=0.0005)
            self._draw_trouble(chance, program)
            if before and chance.random() < 0.1:
                program.returns = (chance.choice([*earlier, *(other.name for other in made)]),)
            self.programs[program.name] = program
            made.append(program)
            before = [program.name]
        return made

    def _draw_joins(self, chance: random.Random, prefix: str, count: int, earlier: list[str]) -> list[Program]:
        """Quick nodes, and after each few of them one that they go along with; some wait for what takes its time."""
        made: list[Program] = []
        heads: list[str] = []
        for number in range(count):
            sources = tuple(heads) if len(heads) > chance.choice((1, 1, 2)) else ()
            program = Program(f"{prefix}{number}", "quick", sources, seconds=0.0001)
            heads = [program.name] if sources and chance.random() < 0.5 else [] if sources else [*heads, program.name]
            if not sources and earlier and chance.random() < 0.2:
                program.sources = (chance.choice(earlier),)
            program.tolerates = tuple(source for source in sources if chance.random() < 0.1)
            self._draw_trouble(chance, program)
            if made and not sources and chance.random() < 0.1:
                program.returns = (chance.choice([*earlier, *(other.name for other in made)]),)
            self.programs[program.name] = program
            made.append(program)
        return made

    def _limited(self, name: str, function: str) -> str:
        """Return the function, or another one with a rate."""
        chance = random.Random(f"{self.seed}/{name}/limit")
        if chance.random() < {"keyed": 0.5, "limited": 0.6, "plain": 0.1}.get(function, 0.0):
            return "rated by key" if function == "keyed" else chance.choice(("rated", "shares", "shares too"))
        return function

    def _draw_delay(self, program: Program) -> None:
        chance = random.Random(f"{self.seed}/{program.name}/delay")
        kind = chance.random()
        if kind < (0.2 if program.sources else 0.04):
            program.later = chance.choice((0.4, 1.1, 2.5))
        elif kind > 0.96:
            program.at = chance.choice((2.0, 5.0, 9.0))

    def _draw_trouble(self, chance: random.Random, program: Program) -> None:
        trouble = chance.random()
        if program.function in ("retries", "patient"):
            most = FUNCTIONS[program.function].retry.max_attempts
            program.fails = chance.choice((0, 1, most - 1, most))
        elif trouble < 0.05:
            program.fails = ALWAYS
        elif trouble > 0.85 and program.function in PAUSABLE:
            program.fails = 1
        elif trouble < 0.1 and program.function != "async":  # which would take a sync neighbour along
            program.dies = chance.choice((1, DEATHS - 1, ALWAYS))

    def _draw_children(self, chance: random.Random, program: Program, others: list[str], depth: int) -> None:
        known = [name for name in others if name not in program.tolerates][-4:]
        for number in range(chance.choice((1, 2, 3))):
            siblings = [child.name for child in program.children]
            program.children.append(self._draw(chance, f"{program.name}.{number}", siblings or known, depth + 1))
        program.ahead = chance.random() < 0.4
        names = [child.name for child in program.children]
        if chance.random() < 0.7:
            program.returns = tuple(chance.sample(names, chance.choice((1, len(names)))))


# --- the plain computation ----------------------------------------------------------------------------


def digest(*parts: str) -> str:
    return blake2b("|".join(parts).encode(), digest_size=8).hexdigest()


def own_value(name: str, sources: list[str]) -> str:
    """What a run computes from the values of its sources; a failure that is tolerated reads `failed`."""
    return digest(name, *sources)


def cached_value(key: str) -> str:
    """What all programs with this cache key compute."""
    return digest("cached", key)


def kept_value(own: str, refs: list[str]) -> str:
    """The value of a node with its promises kept."""
    if own == FOUND:
        return refs[0]
    return digest(own, *refs) if refs else own


class Computation:
    """What everything comes to without a broker, in one process."""

    def __init__(self, plan: Plan) -> None:
        self._programs = plan.programs
        self._runs: dict[str, Outcome] = {}
        self._outcomes: dict[str, Outcome] = {}

    def outcome(self, name: str) -> Outcome:
        known = self._outcomes.get(name)
        if known is None:
            known = self._outcomes[name] = self._outcome(self._programs[name])
        return known

    def _outcome(self, program: Program) -> Outcome:
        run = self.run(program.name)
        if run.failure:
            return run
        refs = [self.outcome(name) for name in program.returns]
        failed = next((ref for ref in refs if ref.failure), None)
        return failed or Outcome(kept_value(run.value, [ref.value for ref in refs]))

    def run(self, name: str) -> Outcome:
        """Of the node's own run, whatever becomes of the promises that it returns."""
        known = self._runs.get(name)
        if known is None:
            known = self._runs[name] = self._run(self._programs[name])
        return known

    def _run(self, program: Program) -> Outcome:
        values = []
        for source in program.sources:
            outcome = self.outcome(source)
            if outcome.failure and source not in program.tolerates:
                return Outcome(failure="upstream")
            values.append(outcome.value or "failed")
        function = FUNCTIONS[program.function]
        if function.queue_timeout:
            return Outcome(failure="dagorama.errors.QueueTimeout")
        if program.dies >= DEATHS:
            return Outcome(failure="dagorama.errors.ProcessDied")
        if program.fails >= max(1, function.retry.max_attempts):
            return Outcome(failure="builtins.ValueError")
        return Outcome(cached_value(program.cache) if program.cache else own_value(program.name, values))

    def all_made(self, programs: list[Program]) -> Iterator[Program]:
        """These nodes and all that come to be below them."""
        for program in programs:
            yield program
            if not self.run(program.name).failure:
                yield from self.all_made(program.children)


def columns(programs: list[Program], first: int, origin_of: dict[str, bytes], origin: bytes) -> dict[str, Any]:
    """The columns of a `Nodes` message; `origin_of` has the IDs of all nodes that have one."""
    names = [program.name for program in programs]
    functions = sorted({program.function for program in programs})
    keys = sorted({program.key for program in programs if program.key})
    places = {name: place for place, name in enumerate(names, first)}
    foreign: list[bytes] = []
    references: list[int] = []
    tolerant: list[int] = []
    for program in programs:
        for source in program.sources:
            if source in program.tolerates:
                tolerant.append(len(references))
            references.append(_reference(source, places, origin_of, origin, foreign))
    return {
        "functions": [FUNCTIONS[name] for name in functions],
        "origin": origin, "first": first, "function": [functions.index(program.function) for program in programs],
        "arguments": [b"\1\0" + name.encode() for name in names],
        "source_count": [len(program.sources) for program in programs], "source": references, "foreign": foreign,
        "tolerant": tolerant, "keys": keys, **_delays(programs), **_announced(programs),
        "key": [keys.index(program.key) + 1 if program.key else 0 for program in programs] if keys else [],
    }  # fmt: skip


def _delays(programs: list[Program]) -> dict[str, Any]:
    delayed = [(place, program) for place, program in enumerate(programs) if program.later or program.at]
    return {
        "delayed": [place for place, _ in delayed], "delay": [program.later for _, program in delayed],
        "not_before": [WALL + program.at if program.at else 0.0 for _, program in delayed],
    }  # fmt: skip


def _announced(programs: list[Program]) -> dict[str, Any]:
    """The cache keys that the callers of some nodes know, or believe to know.

    Those who may be wrong sign with a key of their own, under which no worker has computed a value.
    """
    keys: list[bytes] = []
    signatures: list[bytes] = []
    places: list[int] = []
    for place, program in enumerate(programs):
        drawn = random.Random(f"{program.name}/announced").random()
        if program.cache and drawn < 0.8:
            is_sure = drawn < 0.6
            places.append(place)
            keys.append(cache_key(program.cache if is_sure else "k1"))
            signatures.append((SIGNING_KEY if is_sure else _OTHER_KEY) + program.name.encode().ljust(32, b"\0"))
    return {"cached": places, "cache_key": keys, "cache_announcement": signatures}


def cache_key(key: str) -> bytes:
    """The cache key of the programs with this one, on the wire."""
    return key.encode().ljust(32)


def cache_proof(key: str) -> bytes:
    """Return the signature of the process that computed the value of this cache key."""
    return SIGNING_KEY + cache_key(key)


def _reference(source: str, places: dict[str, int], ids: dict[str, bytes], origin: bytes, foreign: list[bytes]) -> int:
    if source in places:
        return places[source]
    id = ids[source]
    if id[:12] == origin:
        return int.from_bytes(id[12:], "big")
    if id not in foreign:
        foreign.append(id)
    return -1 - foreign.index(id)


def pick(items: list[str], chance: random.Random, most: int) -> list[str]:
    return list(islice(chance.sample(items, len(items)), most))


def name_in(arguments: bytes) -> str:
    """Return the name of the node that has these arguments."""
    if arguments[1] & HOOK:
        arguments, _ = hooked_arguments(arguments)
    return arguments[2:].decode()


def failure_in(arguments: bytes) -> bytes:
    """Return the failure in the arguments of a failure hook, as JSON."""
    return hooked_arguments(arguments)[1]
