"""A store in this process's memory: same records, same answers as the others, gone with the process."""

from __future__ import annotations

import tempfile
import weakref
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from itertools import islice
from operator import attrgetter
from pathlib import Path
from shutil import rmtree
from typing import Any, TypeVar

from dagorama_broker.errors import StoreError
from dagorama_broker.model.domain import Fate, State
from dagorama_broker.model.queries import (
    AskedInstances,
    BadEnd,
    Edges,
    EdgesPage,
    EndedNode,
    Failed,
    FailedNode,
    FoundNode,
    ListedInstances,
    Live,
    LiveNode,
    MadeRun,
    StoredInstance,
    StoredNode,
    is_made,
)
from dagorama_broker.model.rows import (
    AdoptedRow,
    AdoptionRow,
    BroodRow,
    Changes,
    DraftRow,
    FunctionRow,
    InstanceEnd,
    LargeRow,
    NodeRow,
    OutcomeRow,
    ProgressRow,
    RemovedRow,
    ResolvedRow,
    RevivedRow,
    RunRow,
)
from dagorama_broker.store.checksums import unpack_keys, unpack_sources
from dagorama_broker.store.large_values import LargeFiles
from dagorama_broker.store.memory.retention import Forgetting, delete_places
from dagorama_broker.store.sqlite.secret import new_secret

_Row = TypeVar("_Row")
_FIRST, _FIRST_KEY = attrgetter("first"), attrgetter("first_key")


class MemoryStore:
    """Records live as long as this object; close() and open() keep them, as a restart does on other stores."""

    def __init__(self) -> None:
        self._epoch = 0
        self.secret = new_secret()  #: see `Store`
        self._functions: dict[int, FunctionRow] = {}
        self._last_function = 0  #: largest id of those that are gone
        self._instances: dict[int, StoredInstance] = {}
        self._instance_keys: dict[bytes, int] = {}
        self._runs: list[RunRow] = []  #: in the order of their keys
        self._runs_of: dict[int, list[RunRow]] = {}  #: by instance
        self._origins: dict[bytes, list[RunRow]] = {}  #: each list in the order of its counters
        self._nodes: dict[int, NodeRow] = {}
        self._outcomes: dict[int, OutcomeRow] = {}
        self._progress: dict[int, ProgressRow] = {}
        self._large: dict[int, set[bytes]] = {}  #: large values by the node that names them
        self._large_named: Counter[bytes] = Counter()
        self._keys: dict[int, str] = {}
        self._broods: dict[int, BroodRow] = {}
        self._broods_of: dict[int, set[int]] = {}  #: the same attempts by node
        self._makers: dict[int, int] = {}  #: attempt by the first key of a run
        self._adopted: dict[int, AdoptedRow] = {}
        self._adoptions: dict[int, AdoptionRow] = {}
        self._adoption_named: Counter[int] = Counter()
        self._used_failures: dict[int, int] = {}  #: instance by node
        self._forgetting = Forgetting()
        self._last_removed = self._last_swept = 0  #: largest keys of instances and nodes that are gone
        self._workers: dict[bytes, str] = {}
        self._drafts: dict[int, DraftRow] = {}  #: by their first keys
        self._files: LargeFiles | None = None

    def __repr__(self) -> str:
        return "memory"

    @property
    def last_used(self) -> float:
        return 0.0  # there is nothing from before this broker

    def open(self) -> int:
        self._epoch += 1
        for draft in self._drafts.values():
            self._give_up(draft)
        self._drafts.clear()
        return self._epoch

    def close(self) -> None:
        """Nothing is held but memory."""

    # --- writing ----------------------------------------------------------------------------------

    def commit(self, changes: Changes) -> None:
        self._refuse_repeats(changes)
        self._functions.update((row.id, row) for row in changes.functions)
        for instance in changes.instances:
            self._instances[instance.key] = StoredInstance(instance, None, False)
            self._instance_keys[instance.id] = instance.key
        for end in changes.instance_ends:
            self._end_instance(end)
        for run in changes.runs:
            self._runs.insert(bisect_right(self._runs, run.first_key, key=_FIRST_KEY), run)
            self._runs_of.setdefault(run.instance, []).append(run)
            of_origin = self._origins.setdefault(run.origin, [])
            of_origin.insert(bisect_right(of_origin, run.first, key=_FIRST), run)
        self._revive(changes.revived)
        self._nodes.update((node.key, node) for node in changes.nodes)
        self._outcomes.update((outcome.key, outcome) for outcome in changes.outcomes)
        for resolved in changes.resolved:
            self._resolve(resolved)
        self._progress.update((progress.key, progress) for progress in changes.progress)
        for large in changes.large:
            self._name_large(large)
        self._keys.update(changes.keys)
        for brood in changes.broods:
            self._broods[brood.attempt] = brood
            self._broods_of.setdefault(brood.node, set()).add(brood.attempt)
        self._makers.update(changes.brood_runs)
        self._adoptions.update((row.id, row) for row in changes.adoptions)
        for adopted in changes.adopted:
            self._adopt(adopted)
        self._used_failures.update(changes.used_failures)
        self._workers.update(changes.workers_joined)
        for worker in changes.workers_left:
            self._workers.pop(worker, None)
        self._forgetting.link(changes.links)
        if changes.removed:
            self._remove(changes.removed)
        for function in changes.functions_gone:
            del self._functions[function]
            self._last_function = max(self._last_function, function)
        self._drafts.update((draft.first_key, draft) for draft in changes.drafts)
        for nodes in changes.given_up:
            self._give_up(nodes)
        for key in changes.drafts_over:
            del self._drafts[key]

    def _give_up(self, nodes: DraftRow) -> None:
        self._last_swept = max(self._last_swept, nodes.last_key)
        for key in range(nodes.first_key, nodes.last_key + 1):
            self._nodes.pop(key, None)
            self._keys.pop(key, None)
            if (adopted := self._adopted.pop(key, None)) is not None:
                self._let_go_of_adoption(adopted)

    def _refuse_repeats(self, changes: Changes) -> None:
        """What is kept once is never written twice: a second result above all."""
        _refuse("functions", [row.id for row in changes.functions], self._functions.__contains__)
        _refuse("instances", [row.key for row in changes.instances], self._instances.__contains__)
        _refuse("instances", [row.id for row in changes.instances], self._instance_keys.__contains__)
        _refuse("runs", [(row.origin, row.first) for row in changes.runs], self._has_run)
        _refuse("nodes", [row.key for row in changes.nodes], self._nodes.__contains__)
        _refuse("brood_runs", [row.first_key for row in changes.brood_runs], self._makers.__contains__)
        revived = {row.key for row in changes.revived}
        if any(not self._has_ended(key) for key in revived):
            raise StoreError("a node that is to go on has not ended")
        for table, rows, is_there in (
            ("outcomes", changes.outcomes, self._outcomes.__contains__), ("resolved", changes.resolved, self._has_ended)
        ):
            _refuse(table, [row.key for row in rows if row.key not in revived], is_there)

    def _has_run(self, place: tuple[bytes, int]) -> bool:
        origin, first = place
        run = self.last_run(origin, first + 1)
        return run is not None and run.first == first

    def _end_instance(self, end: InstanceEnd) -> None:
        stored = self._instances[end.key]
        self._instances[end.key] = StoredInstance(stored.row, end.ended, end.failed)
        self._forgetting.end(end)

    def _adopt(self, row: AdoptedRow) -> None:
        before = self._adopted.get(row.key)
        self._adopted[row.key] = row
        self._adoption_named[row.adoption] += 1
        if before is not None:
            self._let_go_of_adoption(before)

    def _let_go_of_adoption(self, row: AdoptedRow) -> None:
        """A node does not name it any more."""
        self._adoption_named[row.adoption] -= 1
        if not self._adoption_named[row.adoption]:
            del self._adoption_named[row.adoption]
            self._adoptions.pop(row.adoption, None)

    def _name_large(self, row: LargeRow) -> None:
        named = self._large.setdefault(row.key, set())
        if row.sha256 not in named:
            named.add(row.sha256)
            self._large_named[row.sha256] += 1

    def _resolve(self, resolved: ResolvedRow) -> None:
        self._outcomes[resolved.key] = self._outcomes[resolved.key]._replace(
            state=resolved.state, culprit=resolved.culprit, ended=resolved.ended
        )

    def _revive(self, revived: Iterable[RevivedRow]) -> None:
        for row in revived:
            if row.state == State.RESOLVING:
                self._outcomes[row.key] = self._outcomes[row.key]._replace(state=row.state, culprit=0)
            else:
                del self._outcomes[row.key]
                self._used_failures.pop(row.key, None)

    # --- forgetting -------------------------------------------------------------------------------

    def _remove(self, rows: Sequence[RemovedRow]) -> None:
        for row in rows:
            del self._instances[row.key], self._instance_keys[row.id]
            self._last_removed = max(self._last_removed, row.key)
        self._forgetting.remove(rows)

    def expired(self, failed: bool, before: float, most: int) -> list[StoredInstance]:
        return [self._instances[key] for key in self._forgetting.expired(failed, before, most)]

    def named(self, after: int, most: int) -> list[StoredInstance]:
        return [self._instances[key] for key in self._forgetting.named(after, most)]

    def naming(self, key: int) -> list[StoredInstance]:
        return [self._instances[other] for other in self._forgetting.naming(key)]

    def removed(self, id: bytes) -> RemovedRow | None:
        return self._forgetting.removed(id)

    def functions_of(self, after: int, most: int) -> tuple[set[int], int | None]:
        named: set[int] = set()
        for run in self._runs[max(0, bisect_right(self._runs, after, key=_FIRST_KEY) - 1) :]:
            last = min(run.first_key + run.size - 1, max(run.first_key - 1, after) + most)
            for key in range(max(run.first_key, after + 1), last + 1):
                if key in self._nodes:  # of a removed instance some may be gone
                    named.add(self._nodes[key].function)
                if key in self._adopted:
                    named.add(self._adopted[key].function)
                most -= 1
            if most <= 0:
                return named, last
        return named, None

    def sweep(self, most: int) -> bool:
        swept: list[RunRow] = []
        while most > 0 and (instance := self._forgetting.leftover()) is not None:
            runs = self._runs_of.get(instance)
            if runs:
                most -= self._sweep_run(runs, most, swept)
            else:
                self._runs_of.pop(instance, None)
                self._forgetting.is_swept(instance)
                most -= 1
        delete_places(self._runs, [bisect_left(self._runs, run.first_key, key=_FIRST_KEY) for run in swept])
        return self._forgetting.leftover() is not None

    def _sweep_run(self, runs: list[RunRow], most: int, swept: list[RunRow]) -> int:
        """Delete up to `most` nodes of the last of these runs, from its end, and with its first node the run.

        The run is left in `_runs` and added to `swept`.
        """
        run = runs.pop()
        left = max(run.size - most, 0)
        for key in range(run.first_key + left, run.first_key + run.size):
            self._nodes.pop(key, None)
            self._outcomes.pop(key, None)
            self._progress.pop(key, None)
            self._keys.pop(key, None)
            for attempt in self._broods_of.pop(key, ()):
                del self._broods[attempt]
            if (adopted := self._adopted.pop(key, None)) is not None:
                self._let_go_of_adoption(adopted)
            self._used_failures.pop(key, None)
            self._let_go(key)
        self._last_swept = max(self._last_swept, run.first_key + run.size - 1)
        if left:
            runs.append(run._replace(size=left))
        else:
            swept.append(run)
            self._makers.pop(run.first_key, None)
            of_origin = self._origins[run.origin]
            del of_origin[bisect_left(of_origin, run.first, key=_FIRST)]
            if not of_origin:
                del self._origins[run.origin]
        return run.size - left + 1

    def _let_go(self, key: int) -> None:
        """What this node says of large values."""
        for sha256 in self._large.pop(key, ()):
            self._large_named[sha256] -= 1
            if not self._large_named[sha256]:
                del self._large_named[sha256]
                if self._files is not None:
                    self._files.unnamed([sha256])

    # --- reading ----------------------------------------------------------------------------------

    def live(self) -> Live:
        nodes = [
            LiveNode(node.key, node.instance, node.function, node.sources)
            for node in sorted(self._nodes.values())
            if not self._has_ended(node.key)
        ]
        unfinished = {node.instance for node in nodes}
        return Live(
            functions=list(self._functions.values()),
            instances=[self._instances[key].row for key in sorted(unfinished)],
            runs=[run for run in self._runs if run.instance in unfinished],
            nodes=nodes,
            ended=self.ended([key for node in nodes for key in (node.key, *unpack_sources(node.sources))]),
            progress=[self._progress[node.key] for node in nodes if node.key in self._progress],
            keys={node.key: self._keys[node.key] for node in nodes if node.key in self._keys},
            adopted={node.key: self._adopted[node.key].function for node in nodes if node.key in self._adopted},
            workers=list(self._workers.items()),
            failed={key for key in unfinished if self._instances[key].failed},
            next_node=max(max(self._nodes, default=0), self._last_swept) + 1,
            next_instance=max(max(self._instances, default=0), self._last_removed) + 1,
            next_function=max(self._last_function, *self._functions, 0) + 1,
            broods=[row for _, row in sorted(self._broods.items()) if self._is_live(row)],
            brood_runs=[
                (attempt, self._run_of(key))
                for key, attempt in sorted(self._makers.items())
                if attempt in self._broods and self._is_live(self._broods[attempt])
            ],
            adoptions=self._adoptions_of(node.key for node in nodes),
            next_adoption=max(self._adoptions, default=0) + 1,
        )

    def _adoptions_of(self, keys: Iterable[int]) -> dict[int, AdoptionRow]:
        adopted = (self._adopted[key] for key in keys if key in self._adopted)
        return {row.key: self._adoptions[row.adoption] for row in adopted if row.adoption}

    def _is_live(self, row: BroodRow) -> bool:
        return row.fate != Fate.DEAD and self._fate(row) == Fate.OPEN

    def _fate(self, row: BroodRow) -> int:
        """A released one shares that of the one that it goes back to."""
        while row.fate == Fate.RELEASED and row.within in self._broods:
            row = self._broods[row.within]
        return row.fate

    def fates_of(self, keys: Sequence[int]) -> dict[int, Fate]:
        makers = {key: self._broods.get(self._makers.get(self._run_of(key).first_key, 0)) for key in keys}
        return {key: Fate(self._fate(maker)) for key, maker in makers.items() if maker is not None}

    def ended(self, keys: Sequence[int]) -> list[EndedNode]:
        wanted = set(keys)
        found: dict[int, EndedNode] = {}
        while wanted:
            fresh = [self._ended(key) for key in wanted if key in self._outcomes]
            found.update((node.key, node) for node in fresh)
            wanted = {key for node in fresh for key in unpack_keys(node.refs)} - found.keys()
        return [found[key] for key in sorted(found)]

    def _ended(self, key: int) -> EndedNode:
        node, outcome = self._nodes[key], self._outcomes[key]
        return EndedNode(
            key, node.instance, node.function, outcome.state, outcome.refs, outcome.culprit, outcome.attempt
        )

    def _has_ended(self, key: int) -> bool:
        outcome = self._outcomes.get(key)
        return outcome is not None and outcome.state != State.RESOLVING

    def arguments(self, keys: Sequence[int]) -> dict[int, bytes]:
        return {key: _present(self._nodes.get(key), "arguments", key).arguments for key in keys}

    def values(self, keys: Sequence[int]) -> dict[int, bytes]:
        return {key: self._value(key) for key in keys}

    def _value(self, key: int) -> bytes:
        return _present(_present(self._outcomes.get(key), "value", key).value, "value", key)

    def find(self, ids: Sequence[bytes]) -> dict[bytes, FoundNode]:
        found = {}
        for id in ids:
            run = self._run_with(id)
            if run is not None and not self._forgetting.is_left_over(run.instance):
                key = run.first_key + int.from_bytes(id[12:], "big") - run.first
                node, ended = self._nodes[key], self._ended(key) if self._has_ended(key) else None
                found[id] = FoundNode(id, key, node.instance, node.function, ended, node.sources)
        return found

    def _run_with(self, id: bytes) -> RunRow | None:
        counter, runs = int.from_bytes(id[12:], "big"), self._origins.get(id[:12], [])
        place = bisect_right(runs, counter, key=_FIRST) - 1
        return runs[place] if place >= 0 and counter < runs[place].first + runs[place].size else None

    def ids(self, keys: Sequence[int]) -> dict[int, bytes]:
        return {key: self._id(key) for key in keys}

    def _run_of(self, key: int) -> RunRow:
        run = self._runs[max(bisect_right(self._runs, key, key=_FIRST_KEY) - 1, 0)] if self._runs else None
        if run is None or not run.first_key <= key < run.first_key + run.size:
            raise StoreError(f"the store has no id of node {key}")
        return run

    def _id(self, key: int) -> bytes:
        run = self._run_of(key)
        return run.origin + (run.first + key - run.first_key).to_bytes(4, "big")

    def outcome(self, key: int) -> OutcomeRow | None:
        return self._outcomes.get(key)

    def last_run(self, origin: bytes, before: int) -> RunRow | None:
        runs = self._origins.get(origin, [])
        place = bisect_left(runs, before, key=_FIRST) - 1
        return runs[place] if place >= 0 else None

    def has_instance(self, id: bytes) -> bool:
        return id in self._instance_keys or self._forgetting.removed(id) is not None

    def is_new(self, instance: bytes, origin: bytes) -> bool:
        return origin not in self._origins and not self.has_instance(instance)

    def instance(self, id: bytes) -> StoredInstance | None:
        key = self._instance_keys.get(id)
        return None if key is None else self._instances[key]

    def list_instances(self, asked: AskedInstances) -> ListedInstances:
        def is_asked_for(stored: StoredInstance) -> bool:
            asks = asked.unfinished or asked.failed
            is_one = (asked.unfinished and stored.ended is None) or (asked.failed and stored.failed)
            return (is_one or not asks) and asked.definition in ("", stored.row.definition)

        older = sorted((key for key in self._instances if key < asked.before), reverse=True)
        found = [stored for key in older if is_asked_for(stored := self._instances[key])]
        page = found[: asked.limit]
        return ListedInstances(page, page[-1].row.key if len(found) > len(page) else 0)

    def instances_between(self, low: bytes, high: bytes, most: int) -> list[bytes]:
        return sorted(id for id in self._instance_keys if low <= id <= high)[:most]

    def nodes_between(self, instance: int, low: bytes, high: bytes, most: int) -> list[bytes]:
        ids = (self._id(key) for run in self._runs if run.instance == instance for key in _keys_of(run))
        return sorted(id for id in ids if low <= id <= high)[:most]

    def size_of(self, instance: int) -> int:
        return sum(run.size for run in self._runs if run.instance == instance)

    def node_keys(self, instance: int, after: int, limit: int) -> list[int]:
        keys = (key for run in self._runs if run.instance == instance for key in _keys_of(run) if key > after)
        return list(islice(keys, limit))

    def described(self, keys: Sequence[int]) -> dict[int, StoredNode]:
        return {key: self._described(_present(self._nodes.get(key), "row", key)) for key in keys}

    def _described(self, node: NodeRow) -> StoredNode:
        key, outcome = node.key, self._outcomes.get(node.key)
        if outcome is not None:
            outcome = outcome._replace(value=None, failure=None)
        function = self._adopted[key].function if key in self._adopted else node.function
        used = key in self._used_failures
        return StoredNode(key, function, node.sources, outcome, self._progress.get(key), used)

    def bad_ends(self, instance: int, after: int = 0, limit: int | None = None) -> list[BadEnd]:
        keys = {key for run in self._runs if run.instance == instance for key in _keys_of(run) if key > after}
        found = [self._outcomes[key] for key in sorted(keys) if key in self._outcomes]
        return [BadEnd(row.key, row.state, row.culprit) for row in found if row.culprit][:limit]

    def failed(self, culprits: Sequence[int], more: Collection[int] = (), reruns: Collection[int] = ()) -> Failed:
        wanted, more = set(culprits), set(more)
        found = [
            row for row in self._outcomes.values()
            if (row.state == State.FAILED and (row.culprit in wanted or row.key in more))
            or (row.state == State.COMPLETED and row.key in more)
        ]  # fmt: skip
        nodes = [self._failed(row, row.key in reruns) for row in sorted(found, key=lambda row: row.key)]
        made = self._made([node.key for node in nodes if node.dropped])
        fates = self.fates_of([node.key for node in nodes])
        nodes = [
            node for node in nodes
            if node.instance in self._instances and fates.get(node.key) is not Fate.DEAD and not is_made(made, node.key)
        ]  # fmt: skip
        own, instances = {node.key for node in nodes}, {node.instance for node in nodes}
        awaited = {key for node in nodes for key in unpack_sources(node.sources if node.refs is None else node.refs)}
        return Failed(
            nodes=nodes,
            instances=[self._instances[key] for key in sorted(instances)],
            runs=[run for run in self._runs if not own.isdisjoint(_keys_of(run))],
            ended=[row for row in self.ended(list(awaited)) if row.key not in own],
            keys={key: self._keys[key] for key in own if key in self._keys},
            adopted={key: self._adopted[key].function for key in own if key in self._adopted},
            others={key for key in instances if self._has_other_bad_end(key, own, made)},
            made=made,
            adoptions=self._adoptions_of(own),
        )

    def _has_other_bad_end(self, instance: int, own: set[int], made: Sequence[MadeRun]) -> bool:
        others = [bad.key for bad in self.bad_ends(instance) if bad.key not in own and not is_made(made, bad.key)]
        fates = self.fates_of(others)
        return any(fates.get(key) is not Fate.DEAD for key in others)

    def _failed(self, outcome: OutcomeRow, reruns: bool) -> FailedNode:
        node, has_value = self._nodes[outcome.key], outcome.value is not None and not reruns
        return FailedNode(
            node.key, node.instance, node.function, node.sources, outcome.culprit,
            outcome.refs if has_value else None, outcome.failure, outcome.state, outcome.attempt if reruns else 0,
        )  # fmt: skip

    def _made(self, roots: Sequence[int]) -> list[MadeRun]:
        found: dict[int, MadeRun] = {}
        for root in roots:
            makers = {root}
            for run in self._runs:  # what a node has made comes after it
                if run.maker in makers:
                    makers.update(_keys_of(run))
                    brood = self._broods.get(self._makers.get(run.first_key, 0))
                    found.setdefault(run.first_key, MadeRun(run, root, brood))
        return [found[key] for key in sorted(found)]

    def edges(self, instance: int, after: int, limit: int, tolerant: bool) -> EdgesPage:
        keys = self.node_keys(instance, after, limit)
        edges = [edge for key in keys if (edge := self._edges(key)).sources or edge.refs]
        if tolerant:
            edges = [edge for edge in edges if any(key < 0 for key in unpack_keys(edge.sources))]
        return EdgesPage(edges, keys[-1] if len(keys) == limit else 0)

    def _edges(self, key: int) -> Edges:
        outcome = self._outcomes.get(key)
        refs, state = (b"", None) if outcome is None else (outcome.refs, outcome.state)
        return Edges(key, self._nodes[key].sources, refs, state)

    def used_failures(self, instance: int) -> list[int]:
        return sorted(key for key, its in self._used_failures.items() if its == instance)

    # --- large values -----------------------------------------------------------------------------

    def put_large(self, chunks: Iterable[bytes]) -> tuple[bytes, int]:
        return self._made_files().put(chunks)

    def get_large(self, sha256: bytes) -> Iterator[bytes] | None:
        return self._files.get(sha256) if self._files else None

    def has_large(self, sha256: bytes) -> bool:
        return self._files is not None and self._files.has(sha256)

    def share_large(self) -> tuple[str, str]:
        return self._made_files().share()

    def keep_large(self, sha256: bytes, length: int, unfinished: str = "") -> bool:
        return self._files is not None and self._files.keep(sha256, length, unfinished)

    def find_unnamed_large(self) -> None:
        """There was no broker before that could have left any."""

    def collect_large(self, grace: float, most: int, is_wanted: Callable[[bytes], bool]) -> bool:
        return self._files is not None and self._files.collect(grace, most, is_wanted, self._large_named.__contains__)

    def delete_collected(self, grace: float) -> None:
        if self._files is not None:
            self._files.empty(grace)

    def _made_files(self) -> LargeFiles:
        if self._files is None:
            self._files = LargeFiles(self._temporary_folder())
        return self._files

    def _temporary_folder(self) -> Path:
        """Made when it is first needed, removed with this object or at the interpreter's end."""
        try:
            folder = tempfile.mkdtemp(prefix="dagorama-")
        except OSError as error:
            raise StoreError(f"no folder for large values: {error.strerror or error}") from error
        weakref.finalize(self, rmtree, folder, ignore_errors=True)
        return Path(folder)


def _keys_of(run: RunRow) -> range:
    return range(run.first_key, run.first_key + run.size)


def _refuse(table: str, keys: Sequence[Hashable], is_there: Callable[[Any], bool]) -> None:
    if len(set(keys)) != len(keys) or any(map(is_there, keys)):
        raise StoreError(f"a row of table {table} is there already")


def _present(row: _Row | None, what: str, key: int) -> _Row:
    if row is None:
        raise StoreError(f"the store has no {what} of node {key}")
    return row
