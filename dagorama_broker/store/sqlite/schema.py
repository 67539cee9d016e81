"""The schema as a list of migrations. A released migration is never changed; a new one is appended.

Keys are integers and rows of nodes and outcomes are appended, so that a batch touches few pages. Payloads are the last
columns of a row: a query of the other columns does not read the overflow pages of a long payload. Nodes have no index
by instance: an instance finds its nodes through its runs. `chk` and `end_chk` are checksums, see `checksums`.

An instance is removed in two steps: its row is replaced by a row in `removed` and one in `leftovers`, and then its runs
are deleted in portions, together with the leftover at the end. `named` says that a row of `links` refers to the
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
    is_async INTEGER NOT NULL, world INTEGER NOT NULL, options TEXT NOT NULL
);

CREATE TABLE instances (
    key INTEGER PRIMARY KEY, chk INTEGER NOT NULL,
    id BLOB NOT NULL, definition TEXT NOT NULL, entry BLOB NOT NULL, created REAL NOT NULL,
    ended REAL, failed INTEGER NOT NULL, end_chk INTEGER NOT NULL, named INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX instance_ids ON instances (id);
CREATE INDEX unfinished_instances ON instances (key) WHERE ended IS NULL;
CREATE INDEX failed_instances ON instances (key) WHERE failed = 1;
CREATE INDEX ended_instances ON instances (failed, ended) WHERE ended IS NOT NULL AND named = 0;
CREATE INDEX named_instances ON instances (key) WHERE ended IS NOT NULL AND named = 1;

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

CREATE TABLE runs (
    first_key INTEGER PRIMARY KEY, chk INTEGER NOT NULL,
    origin BLOB NOT NULL, first INTEGER NOT NULL, size INTEGER NOT NULL,
    instance INTEGER NOT NULL, digest BLOB NOT NULL
);
CREATE UNIQUE INDEX run_origins ON runs (origin, first);
CREATE INDEX run_instances ON runs (instance);

CREATE TABLE nodes (
    key INTEGER PRIMARY KEY, chk INTEGER NOT NULL,
    instance INTEGER NOT NULL, function INTEGER NOT NULL, sources BLOB NOT NULL, arguments BLOB NOT NULL
);

CREATE TABLE outcomes (
    key INTEGER PRIMARY KEY, chk INTEGER NOT NULL,
    state INTEGER NOT NULL, attempt INTEGER NOT NULL, culprit INTEGER NOT NULL, ended REAL NOT NULL,
    refs BLOB NOT NULL, value BLOB, failure BLOB
);
CREATE INDEX bad_outcomes ON outcomes (key) WHERE culprit != 0;
CREATE INDEX outcomes_culprits ON outcomes (culprit) WHERE culprit != 0;

CREATE TABLE resolved (
    key INTEGER PRIMARY KEY, chk INTEGER NOT NULL,
    state INTEGER NOT NULL, culprit INTEGER NOT NULL, ended REAL NOT NULL
);
CREATE INDEX bad_resolved ON resolved (key) WHERE culprit != 0;
CREATE INDEX resolved_culprits ON resolved (culprit) WHERE culprit != 0;

CREATE TABLE progress (
    key INTEGER PRIMARY KEY, chk INTEGER NOT NULL,
    runs INTEGER NOT NULL, deaths INTEGER NOT NULL, lost INTEGER NOT NULL, retry_at REAL NOT NULL, failure BLOB,
    pause REAL NOT NULL, attempt INTEGER NOT NULL
);

CREATE TABLE large_refs (
    key INTEGER NOT NULL, sha256 BLOB NOT NULL, chk INTEGER NOT NULL, PRIMARY KEY (key, sha256)
) WITHOUT ROWID;
CREATE INDEX large_hashes ON large_refs (sha256);

CREATE TABLE node_keys (key INTEGER PRIMARY KEY, chk INTEGER NOT NULL, concurrency_key TEXT NOT NULL);

CREATE TABLE broods (
    attempt INTEGER PRIMARY KEY, chk INTEGER NOT NULL,
    node INTEGER NOT NULL, within INTEGER NOT NULL, fate INTEGER NOT NULL
);
CREATE INDEX open_broods ON broods (attempt) WHERE fate = 0;
CREATE INDEX broods_within ON broods (within) WHERE within > 0;
CREATE INDEX brood_nodes ON broods (node);

CREATE TABLE brood_runs (first_key INTEGER PRIMARY KEY, chk INTEGER NOT NULL, attempt INTEGER NOT NULL);
CREATE INDEX brood_attempts ON brood_runs (attempt);
CREATE TABLE adopted (key INTEGER PRIMARY KEY, chk INTEGER NOT NULL, function INTEGER NOT NULL);

CREATE TABLE workers (id BLOB PRIMARY KEY, name TEXT NOT NULL, chk INTEGER NOT NULL) WITHOUT ROWID;
"""

#: Which node's attempt created a run of nodes (the checksum covers it unless it is 0, as in older rows), and which
#: nodes received a failure as a value that has been retried since.
RETRY_DOWNSTREAM = """
ALTER TABLE runs ADD COLUMN maker INTEGER NOT NULL DEFAULT 0;
CREATE INDEX run_makers ON runs (maker) WHERE maker > 0;

CREATE TABLE used_failures (key INTEGER PRIMARY KEY, chk INTEGER NOT NULL, instance INTEGER NOT NULL);
CREATE INDEX used_failures_instances ON used_failures (instance)
"""

#: Which nodes belong to a call that is not decided yet: a start after a crash deletes their rows.
DRAFTS = """
CREATE TABLE drafts (first_key INTEGER PRIMARY KEY, chk INTEGER NOT NULL, last_key INTEGER NOT NULL)
"""

#: The signed permissions to run nodes with other code than they were created with. The checksum of a row of `adopted`
#: covers its `adoption` unless that is 0, as in older rows.
SIGNED_ADOPTIONS = """
CREATE TABLE adoptions (id INTEGER PRIMARY KEY, chk INTEGER NOT NULL, signed BLOB NOT NULL);
ALTER TABLE adopted ADD COLUMN adoption INTEGER NOT NULL DEFAULT 0;
CREATE INDEX adopted_adoptions ON adopted (adoption) WHERE adoption > 0
"""

#: The secret for proofs of grants; and the attempt that the last loss was counted for, so that the loss can be revoked
#: (the checksum covers that column unless it is 0, as in older rows).
GRANT_PROOFS = """
CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL, chk INTEGER NOT NULL) WITHOUT ROWID;

ALTER TABLE progress ADD COLUMN lost_attempt INTEGER NOT NULL DEFAULT 0
"""

#: The migration at index n upgrades a store from version n to version n + 1.
MIGRATIONS = (FIRST_SCHEMA, RETRY_DOWNSTREAM, DRAFTS, SIGNED_ADOPTIONS, GRANT_PROOFS)
