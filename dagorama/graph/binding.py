"""Functions of a class whose code is known: the calls of a running node get the code that its instance is bound to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dagorama.graph.node_batch import FunctionSpec
from dagorama.user_code.class_code import read_text

#: Returns a function with other code.
Binding = Callable[[FunctionSpec], FunctionSpec]


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
