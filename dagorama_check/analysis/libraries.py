"""Functions of Python and of libraries that fail if they get a promise, and objects that cannot be pickled.

The rule: a test calls each of them with a real promise; a function that does not raise then is in none of these tables.
"""

from __future__ import annotations

from dagorama_check.analysis.values import Library, Value


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Names of dagorama that mean something here; the module of it from which they are imported does not matter.
OWN = _names("DAGDefinition DAGInstance aresolve as_completed dagorama outcome resolve resolve_all start")
#: The names without which a module makes no promises, and their modules.
MAKERS, THEIR_MODULES = _names("* DAGDefinition dagorama"), _names("dagorama.decorators dagorama.definition")
#: Attributes that a promise has itself.
OF_PROMISES = frozenset({"arguments", "function_name", "identifier", "instance_id", "node_id"})
#: Attributes of coroutines.
OF_COROUTINES = frozenset({"close", "cr_await", "cr_code", "cr_frame", "cr_origin", "cr_running", "send", "throw"})


def _table(text: str) -> dict[str, str]:
    """Return the rows of a table: the prefix of the names in a row, and the names."""
    rows = (line.split() for line in text.splitlines() if line.strip())
    return {f"{prefix}.{name}": prefix for prefix, *names in rows for name in names}


#: They fail if their first positional argument is a promise.
NEED_VALUES = _table("""
    builtins  abs bin bytearray bytes chr complex dict divmod enumerate float frozenset hex int iter list max min next
    builtins  oct open ord pow print range reversed round set sorted sum tuple zip
    math      acos asin atan ceil cos degrees exp fabs factorial floor fsum hypot isfinite isinf isnan isqrt log log10
    math      log2 pow prod radians sin sqrt tan trunc
    operator  add floordiv mod mul neg pow sub truediv
    statistics  fmean mean median mode pstdev stdev variance
    json      dumps loads
    time      gmtime localtime sleep
    os        listdir makedirs mkdir remove stat
    os.path   basename dirname exists getsize isdir isfile join
    pathlib   Path PurePath
    shutil    copy copyfile move rmtree
    random    choice choices sample shuffle
    collections  Counter OrderedDict deque
    datetime  timedelta
    decimal   Decimal
    fractions  Fraction
    itertools  accumulate batched combinations cycle islice pairwise permutations product
    textwrap  dedent fill wrap
    base64    b64decode b64encode
    hashlib   md5 sha1 sha256
    uuid      UUID
    numpy     arange concatenate max mean median min prod sqrt stack std sum vstack zeros
    pandas    DataFrame Series concat read_csv to_datetime
""")
#: They fail if any of their positional arguments is a promise.
NEED_ALL_VALUES = _table("""
    builtins   divmod enumerate max min pow print range zip
    math       hypot pow
    operator   add floordiv mod mul pow sub truediv
    os.path    join
    shutil     copy copyfile move
    itertools  combinations islice permutations product
    datetime   timedelta
""")
#: They fail if their first positional argument holds promises: at least two, if the function compares.
NEED_ITEMS = _table("""
    builtins    all any max min sorted sum
    math        fsum prod
    json        dumps
    statistics  fmean mean median
    numpy       max mean median min std sum
""")
#: Their second positional argument is iterated.
MAPPING = {"builtins.filter", "builtins.map"}
#: Calls that return objects which cannot be pickled.
STUCK = {
    "socket.socket": "a socket",
    "sqlite3.connect": "a database connection",
    "threading.Barrier": "a barrier",
    "threading.Condition": "a condition",
    "threading.Event": "an event",
    "threading.Lock": "a lock",
    "threading.RLock": "a lock",
    "threading.Semaphore": "a semaphore",
    "threading.Thread": "a thread",
}
#: Calls whose results are no promises and hold none, for all arguments.
PLAIN_RESULTS = frozenset(
    f"builtins.{name}"
    for name in _names(
        "abs all any ascii bin bool bytearray bytes callable chr complex divmod float format hash hex id int "
        "isinstance issubclass len max min oct ord pow print repr round str sum type"
    )
)
#: Asking for the type of a variable: what it is afterwards depends on the answer.
ASKS_TYPE = frozenset(f"builtins.{name}" for name in ("callable", "hasattr", "isinstance", "issubclass", "type"))
#: Names of context managers in which errors are expected, and of errors that a misuse raises.
EXPECTS_ERRORS = frozenset({"assertRaises", "assertRaisesRegex", "raises", "suppress"})
ERRORS_OF_MISUSE = _names(
    "AttributeError DagoramaError NotInInstance NotPicklable PromiseAttribute PromiseMisuse TypeError ValueError"
)


def own_name(value: Value | None) -> str:
    """Return the name of something that dagorama offers; empty if it is nothing of dagorama."""
    if not isinstance(value, Library):
        return ""
    package, _, rest = value.name.partition(".")
    name = rest.rpartition(".")[2]
    return name if package == "dagorama" and name in OWN else ""


def shown_name(name: str) -> str:
    """Return how a function is written: without the module of builtins."""
    return name.removeprefix("builtins.")
