"""Find the source of a method that `%autoreload` of IPython has replaced, and that has no line in a file.

IPython compiles a changed method alone, in a class of its own. The rule: a method of the module's file is the source
only if it compiles to the same instructions.
"""

import ast
import linecache
from collections.abc import Callable
from types import CodeType, FunctionType

_CLASS = "__autoreload_class__"
_Method = ast.FunctionDef | ast.AsyncFunctionDef


def is_reloaded(function: FunctionType) -> bool:
    """Return whether IPython has compiled the function."""
    return function.__qualname__.startswith(f"{_CLASS}.")


def reloaded_source(function: FunctionType, instructions: Callable[[CodeType], str]) -> _Method | None:
    """Return the syntax tree of a reloaded method; None if the file has none whose `instructions` are the same."""
    filename = function.__globals__.get("__file__") or ""
    linecache.checkcache(filename)
    try:
        tree = ast.parse("".join(linecache.getlines(filename)))
    except (SyntaxError, ValueError):
        return None
    classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    methods = (node for cls in classes for node in cls.body if isinstance(node, _Method))
    name, wanted = function.__code__.co_name, instructions(function.__code__)
    return next((each for each in methods if each.name == name and instructions(_compiled(each)) == wanted), None)


def _compiled(method: _Method) -> CodeType:
    """Compile a method as IPython does."""
    method.decorator_list = []
    module = ast.parse(f"class {_CLASS}: pass")
    module.body[0].body = [method]  # type: ignore[attr-defined]  # it is a class
    code = compile(module, "<reloaded>", "exec", dont_inherit=True)
    for name in (_CLASS, method.name):
        code = next(inner for inner in code.co_consts if isinstance(inner, CodeType) and inner.co_name == name)
    return code
