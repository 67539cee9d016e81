"""Hash the code of functions: the same code has the same hash in every process and on every supported Python.

The hash depends on the function's `__name__`, its parameters with their defaults, every statement, name and constant in
it and in nested functions, and the functions that it wraps. It does not depend on file and line, its own decorators,
docstrings, comments, annotations of parameters, results and local variables, and the values of the names that it uses.

The rule: the hash is of the syntax tree, in a form of our own, because ast.dump and bytecode differ between versions.
Without source it is of the bytecode, and then it begins with the version of Python.
"""

import ast
import linecache
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from hashlib import sha256
from inspect import CO_VARARGS, CO_VARKEYWORDS, getblock
from tokenize import TokenError
from types import CodeType, EllipsisType, FunctionType, MethodType, NoneType
from typing import Any, NamedTuple

from dagorama.code_signature.reloaded import is_reloaded, reloaded_source

DIGITS = 32  # 128 bits: two functions do not have the same hash by chance
FORMS_KEPT = 4096

# Code of a command line or of exec() has one of these file names, in any number of modules.
_NO_FILE = ("<string>", "<stdin>")
_IGNORED_FIELDS = frozenset({"ctx", "kind", "type_comment", "type_params", "type_ignores"})
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCALARS = (NoneType, EllipsisType, bool, int, float, complex, str, bytes)
_OF_NAMES = (ast.Constant, ast.Name, ast.Tuple, ast.UnaryOp, ast.BinOp, ast.unaryop, ast.operator, ast.expr_context)

_kept: dict[str, list[str]] = {}
_forms: "dict[tuple[CodeType, str], _Form]" = {}


class _Form(NamedTuple):
    """The text of one code object, and the default values of its function that the hash depends on."""

    text: str
    defaults: tuple[int, ...]
    keyword_defaults: tuple[str, ...]


def calculate_function_hash(fn: Callable[..., Any], include_package_versions: bool = False) -> str:
    """Return the hash of a function, method, partial or decorated function.

    With `include_package_versions` it also depends on the installed packages and their versions. Raises TypeError for
    an object that is not written in Python.
    """
    forms = [(function, _form(function)) for function in functions_in(fn)]
    if not forms:
        raise TypeError(f"{fn!r} is not written in Python: it has no code to hash")
    parts: list[str] = []
    for function, form in forms:
        parts += [ascii(function.__name__), form.text, *_default_values(function, form)]
    if include_package_versions:
        parts += _installed()
    mark = next((form.text.partition(" ")[0] + "-" for _, form in forms if form.text.startswith("py")), "")
    return mark + sha256("\n".join(parts).encode()).hexdigest()[:DIGITS]


def keep_source(fn: Callable[..., Any]) -> None:
    """Read the file of `fn` when it is defined: its hash is then of the loaded code, even if the file changes later."""
    for function in functions_in(fn):
        filename = function.__code__.co_filename
        linecache.checkcache(filename)
        _kept[filename] = linecache.getlines(filename, function.__globals__)


def source_lines(filename: str, names: dict[str, Any]) -> list[str]:
    """Return the lines of a file as they were when a function in it was decorated; `names` are its module's."""
    return _kept.get(filename) or linecache.getlines(filename, names)


def functions_in(fn: Any) -> Iterator[FunctionType]:
    """Yield the Python functions that `fn` consists of, from the outside in."""
    seen: set[int] = set()
    while fn is not None and id(fn) not in seen:
        seen.add(id(fn))
        if isinstance(fn, FunctionType):
            # The wrapper of our own decorator does not count.
            original = fn.__dict__.get("original_fn")
            if original is None:
                yield fn
            fn = original or fn.__dict__.get("__wrapped__")
        elif isinstance(fn, (MethodType, staticmethod, classmethod)):
            fn = fn.__func__
        else:
            fn = fn.func if isinstance(fn, partial) else getattr(fn, "__wrapped__", None)


def _form(function: FunctionType) -> _Form:
    code = function.__code__
    key = code, code.co_filename  # equal code in two files may have different source
    form = _forms.get(key)
    if form is None:
        if len(_forms) >= FORMS_KEPT:
            _forms.clear()
        node = _node(function)
        form = _forms[key] = _source_form(node) if node else _bytecode_form(code)
    return form


# --- from source ---------------------------------------------------------------------------------


def _node(function: FunctionType) -> "ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | None":
    """Return the syntax tree of the function itself, or None if its source is not available."""
    code = function.__code__
    if is_reloaded(function):
        return reloaded_source(function, _instructions)
    if code.co_filename in _NO_FILE:
        return None
    lines = source_lines(code.co_filename, function.__globals__)
    try:
        found = _lambda(lines, code) if code.co_name == "<lambda>" else _def(lines, code)
    except (SyntaxError, ValueError, TokenError):
        return None
    return found if found and _has_the_parameters_of(code, found.args) else None


def _def(lines: list[str], code: CodeType) -> "ast.FunctionDef | ast.AsyncFunctionDef | None":
    block = getblock(lines[code.co_firstlineno - 1 :])
    if not block:
        return None
    # Dedenting would change the text of its strings.
    header = "if 1:\n" if block[0][:1].isspace() else ""
    statement: ast.AST = ast.parse(header + "".join(block)).body[0]
    if isinstance(statement, ast.If):
        statement = statement.body[0]
    return statement if isinstance(statement, _FUNCTIONS) and statement.name == code.co_name else None


def _lambda(lines: list[str], code: CodeType) -> ast.Lambda | None:
    """Return the innermost lambda of the line whose body contains the positions of all instructions."""
    # Instructions without source have the columns (0, 0).
    places = [place for place in code.co_positions() if None not in place and place[2:] != (0, 0)]
    found = [
        node
        for node in ast.walk(ast.parse("".join(lines)))
        if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno and _holds(node.body, places)
    ]
    return found[-1] if found and (places or len(found) == 1) else None


def _holds(body: ast.expr, places: "list[tuple[Any, ...]]") -> bool:
    start, end = (body.lineno, body.col_offset), (body.end_lineno, body.end_col_offset)
    return all(start <= (place[0], place[2]) and (place[1], place[3]) <= end for place in places)


def _has_the_parameters_of(code: CodeType, args: ast.arguments) -> bool:
    """Return whether source and code have the same parameters: the file of a running program may have changed."""
    counts = len(args.posonlyargs) + len(args.args), len(args.posonlyargs), len(args.kwonlyargs)
    stars = bool(args.vararg), bool(args.kwarg)
    return counts == (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount) and stars == (
        bool(code.co_flags & CO_VARARGS),
        bool(code.co_flags & CO_VARKEYWORDS),
    )


def _source_form(node: "ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda") -> _Form:
    if not isinstance(node, ast.Lambda):
        node.name, node.decorator_list = "", []
    defaults, keyword_defaults = node.args.defaults, zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    return _Form(
        "".join(canonical(node)),
        tuple(index for index, default in enumerate(defaults) if _is_of_names(default)),
        tuple(argument.arg for argument, default in keyword_defaults if default and _is_of_names(default)),
    )


def canonical(root: ast.AST) -> Iterator[str]:
    """Yield the tree as text, without recursion, because a long sum or chain of calls is a deep tree."""
    stack: list[tuple[Any, bool]] = [(root, False)]
    while stack:
        item, in_class = stack.pop()
        if isinstance(item, ast.AnnAssign) and item.value and not in_class:
            item = ast.Assign([item.target], item.value)
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            stack.append(("]", in_class))
            stack += [(scalar(part) if isinstance(part, str) else part, in_class) for part in reversed(item)]
            yield "["
        elif isinstance(item, ast.AST):
            inside = isinstance(item, ast.ClassDef) or (in_class and not isinstance(item, (*_FUNCTIONS, ast.Lambda)))
            stack.append((")", in_class))
            for name, value in reversed(list(_fields(item, in_class))):
                stack += [(value, inside), (f" {name}=", inside)]
            yield f"({type(item).__name__}"
        else:
            yield scalar(item)


def _fields(node: ast.AST, in_class: bool) -> Iterator[tuple[str, Any]]:
    """Yield the fields that the hash depends on; empty fields are skipped, because versions of Python add fields."""
    for name, value in sorted(ast.iter_fields(node)):
        if name in _IGNORED_FIELDS or _is_annotation(node, name, in_class):
            continue
        if name == "body" and isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            value = value[1:] if ast.get_docstring(node, clean=False) is not None else value
        elif name == "values" and isinstance(node, ast.JoinedStr):
            value = _merged(value)
        if isinstance(value, ast.JoinedStr) and not value.values:
            continue
        if isinstance(node, ast.Constant) or isinstance(value, (str, int)):
            yield name, scalar(value)
        elif value is not None and value != []:
            yield name, value


def _is_annotation(node: ast.AST, field: str, in_class: bool) -> bool:
    if isinstance(node, ast.AnnAssign):
        return field == "annotation" and not in_class  # in a class body it may be a dataclass field
    return (isinstance(node, ast.arg) and field == "annotation") or (
        isinstance(node, _FUNCTIONS) and field == "returns"
    )


def _merged(values: Iterable[ast.expr]) -> list[ast.expr]:
    """Join adjacent texts of an f-string, because versions of Python split them differently."""
    merged: list[ast.expr] = []
    for value in values:
        last = merged[-1] if merged else None
        if isinstance(value, ast.Constant) and isinstance(last, ast.Constant):
            merged[-1] = ast.Constant(str(last.value) + str(value.value))
        elif not isinstance(value, ast.Constant) or value.value:
            merged.append(value)
    return merged


# --- defaults ------------------------------------------------------------------------------------


def _is_of_names(default: ast.expr) -> bool:
    """Return whether the hash depends on the value of a default, and not only on its source.

    The value of a call, an attribute or __file__ may differ between machines.
    """
    return all(
        isinstance(node, _OF_NAMES) and not (isinstance(node, ast.Name) and node.id.startswith("__"))
        for node in ast.walk(default)
    )


def _default_values(function: FunctionType, form: _Form) -> Iterator[str]:
    values = function.__defaults__ or ()
    named = function.__kwdefaults__ or {}
    yield from (f"{index}={_value(values[index])}" for index in form.defaults if index < len(values))
    yield from (f"{name}={_value(named[name])}" for name in form.keyword_defaults if name in named)


def _value(value: object) -> str:
    if type(value) is tuple:
        return f"({','.join(map(_value, value))})"
    if type(value) not in _SCALARS or (isinstance(value, str) and os.path.isabs(value)):
        return ""
    return scalar(value)


def scalar(value: object) -> str:
    # The repr of a text depends on the Unicode tables of the version, and the repr of an int is limited in length.
    text = hex(value) if type(value) is int else ascii(value)
    return f"{type(value).__name__}:{text};"


# --- from bytecode -------------------------------------------------------------------------------


def _bytecode_form(code: CodeType) -> _Form:
    text = f"py{sys.version_info.major}.{sys.version_info.minor} {_instructions(code)}"
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return _Form(text, tuple(range(code.co_argcount)), arguments[code.co_argcount :])


def _instructions(code: CodeType) -> str:
    tables = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    constants = ",".join(map(_constant, code.co_consts))
    return f"<{code.co_code.hex()} {code.co_exceptiontable.hex()} {tables!a} {counts} {constants}>"


def _constant(value: object) -> str:
    if isinstance(value, CodeType):
        return ascii(value.co_name) + _instructions(value)
    if isinstance(value, tuple):
        return f"({','.join(map(_constant, value))})"
    if isinstance(value, frozenset):
        return f"{{{','.join(sorted(map(_constant, value)))}}}"
    return scalar(value)


def _installed() -> list[str]:
    from importlib.metadata import distributions

    return sorted({f"{found.name.lower()}=={found.version}" for found in distributions() if found.name})
