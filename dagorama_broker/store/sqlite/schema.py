"""The schema as a list of migrations. A released migration is never changed; a new one is appended.

Keys are integers and rows of nodes and outcomes are appended, so that a batch touches few pages. Payloads are the last
columns of a row: a query of the other columns does not read the overflow pages of a long payload. Nodes have no index
by instance: an instance finds its nodes through its blocks. `chk` and `end_chk` are checksums, see `checksums`.

An instance is removed in two steps: its row is replaced by a row in `removed` and one in `leftovers`, and then its
blocks are deleted in portions, together with the leftover at the end. `named` says that a row of `links` refers to the
instance. Free pages are reused; there is no auto_vacuum, which would move pages to make the file smaller for a while.
"""

from __future__ import annotations

#: "DAGO": distinguishes our files from other SQLite files.
APPLICATION_ID = 0x4441474F

FIRST_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL, chk INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE functions (
    id INTEGER PRIMARY KEY, chk INTEGER NOT NULL,
    name TEXT NOT NULL, hash TEXT NOT NULL, queue TEXT NOT NULL, taint TEXT NOT NULL,
    max_attempts INTEGER, retry_interval REAL, retry_base REAL, retry_max_interval REAL, retry_jitter REAL,
    is_async INTEGER NOT NULL, protocol INTEGER NOT NULL, options TEXT NOT NULL
);

CREATE TABLE instances (
    key INTEGER PRIMARY KEY, chk INTEGER NOT NULL,
    id BLOB NOT NULL, definition TEXT NOT NULL, entry BLOB NOT NULL, created REAL NOT NULL, priority INTEGER NOT NULL,
    ended REAL, failed INTEGER NOT NULL, end_chk INTEGER NOT NULL, named INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX instance_ids ON instances (id);
CREATE INDEX unfinished_instances ON instances (key) WHERE ended IS NULL;
CREATE INDEX failed_instances ON instances (key) WHERE failed = 1;
CREATE INDEX ended_instances ON instances (failed, ended) WHERE ended IS NOT NULL AND named = 0;
CREATE INDEX named_instances ON instances (key) WHERE ended IS NOT NULL AND named = 1;

CREATE TABLE instance_names (
    instance INTEGER PRIMARY KEY, chk INTEGER NOT NULL,
    definition TEXT NOT NULL, name TEXT NOT NULL, digest BLOB NOT NULL
);
CREATE UNIQUE INDEX instance_names_unique ON instance_names (name, definition);

CREATE TABLE labels (
    instance INTEGER NOT NULL, label TEXT NOT NULL, value TEXT NOT NULL, chk INTEGER NOT NULL,
    PRIMARY KEY (instance, label)
) WITHOUT ROWID;
CREATE INDEX labels_values ON labels (label, value, instance);

CREATE TABLE links (
    instance INTEGER NOT NULL, named INTEGER NOT NULL, chk INTEGER NOT NULL, PRIMARY KEY (instance, named)
) WITHOUT ROWID;
CREATE INDEX links_named ON links (named);

CREATE TABLE removed (
    number INTEGER PRIMARY KEY, chk INTEGER NOT NULL,
    instance INTEGER NOT NULL, id BLOB NOT NULL, ended REAL NOT NULL, failed INTEGER NOT NULL, kept REAL NOT NULL
);
CREATE UNIQUE INDEX removed_ids ON removed (id);

CREATE TABLE leftovers (instance INTEGER PRIMARY KEY, chk INTEGER NOT NULL);

CREATE TABLE node_blocks (
    first_key INTEGER PRIMARY KEY, chk INTEGER NOT NULL,
    origin BLOB NOT NULL, first INTEGER NOT NULL, size INTEGER NOT NULL,
    instance INTEGER NOT NULL, digest BLOB NOT NULL, creator INTEGER NOT NULL, created INTEGER NOT NULL
);
CREATE UNIQUE INDEX node_block_origins ON node_blocks (origin, first);
CREATE INDEX node_block_instances ON node_blocks (instance);
CREATE INDEX node_block_creators ON node_blocks (creator) WHERE creator > 0;

CREATE TABLE nodes (
    key INTEGER PRIMARY KEY, chk INTEGER NOT NULL,
    instance INTEGER NOT NULL, function INTEGER NOT NULL, sources BLOB NOT NULL, arguments BLOB NOT NULL
);

CREATE TABLE outcomes (
    key INTEGER PRIMARY KEY, chk INTEGER NOT NULL,
    state INTEGER NOT NULL, attempt INTEGER NOT NULL, root_cause INTEGER NOT NULL, ended REAL NOT NULL,
    microseconds INTEGER NOT NULL, worker INTEGER NOT NULL, refs BLOB NOT NULL, value BLOB, failure BLOB
);
CREATE INDEX failed_outcomes ON outcomes (key) WHERE root_cause != 0;
CREATE INDEX outcomes_root_causes ON outcomes (root_cause) WHERE root_cause != 0;

CREATE TABLE resolved (
    key INTEGER PRIMARY KEY, chk INTEGER NOT NULL,
    state INTEGER NOT NULL, root_cause INTEGER NOT NULL, ended REAL NOT NULL
);
CREATE INDEX failed_resolved ON resolved (key) WHERE root_cause != 0;
CREATE INDEX resolved_root_causes ON resolved (root_cause) WHERE root_cause != 0;

CREATE TABLE progress (
    key INTEGER PRIMARY KEY, chk INTEGER NOT NULL,
    failed_attempts INTEGER NOT NULL, crashes INTEGER NOT NULL, worker_losses INTEGER NOT NULL,
    retry_at REAL NOT NULL, failure BLOB, pause REAL NOT NULL, attempt INTEGER NOT NULL, lost_attempt INTEGER NOT NULL
);

CREATE TABLE large_refs (
    key INTEGER NOT NULL, sha256 BLOB NOT NULL, chk INTEGER NOT NULL, PRIMARY KEY (key, sha256)
) WITHOUT ROWID;
CREATE INDEX large_hashes ON large_refs (sha256);

CREATE TABLE node_keys (key INTEGER PRIMARY KEY, chk INTEGER NOT NULL, concurrency_key TEXT NOT NULL);

CREATE TABLE eager_attempts (
    attempt INTEGER PRIMARY KEY, chk INTEGER NOT NULL,
    node INTEGER NOT NULL, parent INTEGER NOT NULL, eager_state INTEGER NOT NULL
);
CREATE INDEX open_eager_attempts ON eager_attempts (attempt) WHERE eager_state = 0;
CREATE INDEX eager_attempts_parent ON eager_attempts (parent) WHERE parent > 0;
CREATE INDEX eager_attempt_nodes ON eager_attempts (node);

CREATE TABLE eager_blocks (first_key INTEGER PRIMARY KEY, chk INTEGER NOT NULL, attempt INTEGER NOT NULL);
CREATE INDEX eager_block_attempts ON eager_blocks (attempt);

CREATE TABLE block_traces (first_key INTEGER PRIMARY KEY, chk INTEGER NOT NULL, trace TEXT NOT NULL);

CREATE TABLE rebindings (id INTEGER PRIMARY KEY, chk INTEGER NOT NULL, signed BLOB NOT NULL);
CREATE TABLE rebound_nodes (
    key INTEGER PRIMARY KEY, chk INTEGER NOT NULL, function INTEGER NOT NULL, rebinding INTEGER NOT NULL
);
CREATE INDEX rebound_nodes_rebindings ON rebound_nodes (rebinding) WHERE rebinding > 0;

CREATE TABLE used_failures (key INTEGER PRIMARY KEY, chk INTEGER NOT NULL, instance INTEGER NOT NULL);
CREATE INDEX used_failures_instances ON used_failures (instance);

CREATE TABLE drafts (first_key INTEGER PRIMARY KEY, chk INTEGER NOT NULL, last_key INTEGER NOT NULL);
CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL, chk INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE workers (id BLOB PRIMARY KEY, name TEXT NOT NULL, chk INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE paused_queues (
    queue TEXT PRIMARY KEY, since REAL NOT NULL, by TEXT NOT NULL, chk INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE worker_names (number INTEGER PRIMARY KEY, chk INTEGER NOT NULL, name TEXT NOT NULL)
"""

ACTIONS = """
CREATE TABLE actions (
    number INTEGER PRIMARY KEY, chk INTEGER NOT NULL,
    time REAL NOT NULL, by TEXT NOT NULL, action TEXT NOT NULL,
    instance BLOB NOT NULL, target TEXT NOT NULL, nodes INTEGER NOT NULL
)
"""

LARGES = """
CREATE TABLE larges (
    sha256 BLOB PRIMARY KEY, chk INTEGER NOT NULL, length INTEGER NOT NULL, object TEXT NOT NULL, kept REAL NOT NULL
) WITHOUT ROWID
"""

NODE_DELAYS = """
CREATE TABLE node_delays (key INTEGER PRIMARY KEY, chk INTEGER NOT NULL, seconds REAL NOT NULL, until REAL NOT NULL)
"""

SCHEDULES = """
CREATE TABLE schedules (
    name TEXT PRIMARY KEY, definition TEXT NOT NULL, function BLOB NOT NULL, arguments BLOB NOT NULL,
    cron TEXT NOT NULL, zone TEXT NOT NULL, every REAL NOT NULL, start REAL NOT NULL,
    overlap TEXT NOT NULL, catch_up TEXT NOT NULL, paused INTEGER NOT NULL, fired REAL NOT NULL,
    instance BLOB NOT NULL, waiting REAL NOT NULL, digest BLOB NOT NULL, key TEXT NOT NULL, put REAL NOT NULL,
    by TEXT NOT NULL, last REAL NOT NULL, missed REAL NOT NULL, missed_at REAL NOT NULL, uncounted INTEGER NOT NULL,
    chk INTEGER NOT NULL
) WITHOUT ROWID
"""

CACHED = """
CREATE TABLE cached (
    key BLOB PRIMARY KEY, chk INTEGER NOT NULL,
    function TEXT NOT NULL, function_id INTEGER NOT NULL, instance INTEGER NOT NULL, instance_id BLOB NOT NULL,
    node INTEGER NOT NULL, node_id BLOB NOT NULL, completed REAL NOT NULL, expires REAL NOT NULL,
    has_refs INTEGER NOT NULL, proof BLOB NOT NULL
) WITHOUT ROWID
"""

HOOKS = """
CREATE TABLE hooks (
    instance INTEGER PRIMARY KEY, chk INTEGER NOT NULL, function BLOB NOT NULL, arguments BLOB NOT NULL,
    is_deaf INTEGER NOT NULL, failure BLOB NOT NULL
)
"""

SIGNALS = """
CREATE TABLE signal_waits (
    key INTEGER PRIMARY KEY, chk INTEGER NOT NULL, instance INTEGER NOT NULL, name TEXT NOT NULL,
    timeout REAL NOT NULL, until REAL NOT NULL, has_default INTEGER NOT NULL, schema BLOB NOT NULL,
    arguments BLOB NOT NULL, how INTEGER NOT NULL, by TEXT NOT NULL, ended REAL NOT NULL
);
CREATE INDEX signal_waits_instances ON signal_waits (instance);
CREATE TABLE signals (
    number INTEGER PRIMARY KEY, chk INTEGER NOT NULL, instance INTEGER NOT NULL, name TEXT NOT NULL,
    key TEXT NOT NULL, digest BLOB NOT NULL, by TEXT NOT NULL, sent REAL NOT NULL, value BLOB
);
CREATE INDEX signals_instances ON signals (instance)
"""

TURNS = """
CREATE TABLE turns (instance INTEGER PRIMARY KEY, chk INTEGER NOT NULL, fair TEXT NOT NULL, turn INTEGER NOT NULL)
"""

KEY_PAUSES = """
CREATE TABLE key_pauses (
    name TEXT NOT NULL, key TEXT NOT NULL, of_limit INTEGER NOT NULL,
    until REAL NOT NULL, seconds REAL NOT NULL, node INTEGER NOT NULL, chk INTEGER NOT NULL,
    PRIMARY KEY (name, key, of_limit)
) WITHOUT ROWID
"""

#: Version of a store that only `FIRST_SCHEMA` has made. Lower versions were written before the first release with
#: tables of other names, and are refused.
FIRST_VERSION = 9
#: The migration at index n makes version `FIRST_VERSION` + n.
MIGRATIONS = (FIRST_SCHEMA, ACTIONS, LARGES, NODE_DELAYS, SCHEDULES, CACHED, HOOKS, SIGNALS, TURNS, KEY_PAUSES)
#: The version that all migrations make.
LATEST_VERSION = FIRST_VERSION + len(MIGRATIONS) - 1
