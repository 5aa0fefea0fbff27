-- What a node keeps. Tables are STRICT; times are milliseconds since 1970; value and outcome are the bits of a double,
-- which a REAL does not keep of every double. What is long has a table of its own, so that a task or a handoff that
-- gets on rewrites only its short row.

-- Commits, from number 1; each ends with a seal.
CREATE TABLE ledger (
    number  INTEGER PRIMARY KEY,
    entries BLOB NOT NULL
) STRICT;

-- The last two snapshots, by the number of the commit with which they were kept.
CREATE TABLE snapshot (
    commits INTEGER PRIMARY KEY,
    state   BLOB NOT NULL
) STRICT;

-- Numbered from 0, without a gap.
CREATE TABLE peer (
    number   INTEGER PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    counters BLOB NOT NULL
) STRICT;

CREATE TABLE task (
    came         INTEGER PRIMARY KEY,
    peer         INTEGER NOT NULL,
    id           BLOB NOT NULL,
    message      TEXT NOT NULL,
    digest       BLOB NOT NULL,
    context      TEXT NOT NULL,
    agent        INTEGER NOT NULL,
    passes_value INTEGER NOT NULL,
    received_ms  INTEGER NOT NULL,
    deadline_ms  INTEGER NOT NULL,
    state        INTEGER NOT NULL,
    changed_ms   INTEGER NOT NULL,
    value        INTEGER,
    why          TEXT,
    closing      BLOB,
    outcome      INTEGER,
    open         INTEGER NOT NULL,
    UNIQUE (peer, id),
    UNIQUE (peer, message)
) STRICT;
CREATE INDEX task_open ON task (came) WHERE open = 1;
CREATE INDEX task_changed ON task (peer, changed_ms DESC, id DESC);

CREATE TABLE stay (
    task  INTEGER PRIMARY KEY,
    state BLOB NOT NULL
) STRICT;

CREATE TABLE result (
    task    INTEGER PRIMARY KEY,
    facts   TEXT NOT NULL,
    payload BLOB NOT NULL
) STRICT;

CREATE TABLE made (
    number      INTEGER PRIMARY KEY,
    wire        BLOB NOT NULL UNIQUE,
    peer        INTEGER NOT NULL,
    agent       INTEGER NOT NULL,
    task_peer   INTEGER NOT NULL,
    task        BLOB NOT NULL,
    handoff     BLOB NOT NULL,
    deadline_ms INTEGER NOT NULL,
    state       INTEGER NOT NULL,
    passes_value INTEGER,
    remote      TEXT,
    value       INTEGER,
    settled     INTEGER NOT NULL,
    outcome     INTEGER,
    telling     BLOB,
    cancels     INTEGER NOT NULL,
    open        INTEGER NOT NULL
) STRICT;
CREATE INDEX made_open ON made (task_peer, task) WHERE open = 1;

CREATE TABLE artifact (
    made    INTEGER PRIMARY KEY,
    facts   TEXT NOT NULL,
    payload BLOB NOT NULL
) STRICT;

CREATE TABLE push (
    peer   INTEGER NOT NULL,
    task   BLOB NOT NULL,
    id     TEXT NOT NULL,
    config TEXT NOT NULL,
    PRIMARY KEY (peer, task, id)
) STRICT, WITHOUT ROWID;
