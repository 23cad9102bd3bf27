-- Times are microseconds since 1970, UTC. Levels are 0 (informational) to 4 (critical).

CREATE TABLE agents (
    id       TEXT PRIMARY KEY,
    agency   TEXT NOT NULL,
    host     TEXT NOT NULL,
    machine  TEXT NOT NULL,
    -- Names the public key it enrolled with: the same key again is the same agent.
    key      TEXT NOT NULL,
    token    BLOB NOT NULL,
    state    TEXT NOT NULL CHECK (state IN ('active', 'quarantined', 'revoked')),
    enrolled INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX agents_key ON agents (key);

-- Raised in the transaction that changes a table which centres keep in memory.
CREATE TABLE versions (
    name   TEXT PRIMARY KEY,
    number INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO versions VALUES ('agents', 1);

CREATE TABLE heartbeats (
    agent    TEXT PRIMARY KEY REFERENCES agents (id),
    received INTEGER NOT NULL,
    clock    INTEGER NOT NULL,
    version  TEXT NOT NULL,
    payload  TEXT NOT NULL
) WITHOUT ROWID;

-- What is known of an agent's numbers, by spool file.
CREATE TABLE epochs (
    agent       TEXT NOT NULL REFERENCES agents (id),
    epoch       INTEGER NOT NULL,
    used        INTEGER NOT NULL,
    next        INTEGER NOT NULL,
    unexplained INTEGER NOT NULL DEFAULT 0,
    stated      INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (agent, epoch)
) WITHOUT ROWID;

CREATE TABLE received (
    agent TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last  INTEGER NOT NULL,
    PRIMARY KEY (agent, epoch, first),
    FOREIGN KEY (agent, epoch) REFERENCES epochs (agent, epoch) ON DELETE CASCADE
) WITHOUT ROWID;

CREATE TABLE alerts (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    id       BLOB NOT NULL,
    agent    TEXT NOT NULL REFERENCES agents (id),
    time     INTEGER NOT NULL,
    received INTEGER NOT NULL,
    level    INTEGER NOT NULL,
    rule     TEXT NOT NULL,
    title    TEXT NOT NULL,
    host     TEXT NOT NULL,
    agency   TEXT NOT NULL,
    count    INTEGER NOT NULL,
    payload  TEXT NOT NULL,
    -- `id` first: one alert is asked for by its id alone.
    UNIQUE (id, agent, time)
);
CREATE INDEX alerts_time ON alerts (time, seq);
CREATE INDEX alerts_level ON alerts (level, time, seq);
CREATE INDEX alerts_host ON alerts (host, time, seq);
CREATE INDEX alerts_rule ON alerts (rule, time, seq);
CREATE INDEX alerts_agency ON alerts (agency, time, seq);
CREATE INDEX alerts_received ON alerts (received);

-- Every rule of which an alert is stored, so that a part of a title is looked for here and not in the alerts.
CREATE TABLE rules (
    id    TEXT NOT NULL,
    title TEXT NOT NULL,
    PRIMARY KEY (id, title)
) WITHOUT ROWID;

-- For enrolment. Only the SHA-256 of the secret is kept.
CREATE TABLE tokens (
    hash      BLOB PRIMARY KEY,
    agency    TEXT NOT NULL,
    uses_left INTEGER NOT NULL,
    expires   INTEGER NOT NULL,
    -- A JSON array of CIDR networks; empty: from anywhere.
    networks  TEXT NOT NULL,
    created   INTEGER NOT NULL
) WITHOUT ROWID;

-- People's and tools' tokens for the query API. Only the SHA-256 is kept.
CREATE TABLE api_tokens (
    hash    BLOB PRIMARY KEY,
    name    TEXT NOT NULL,
    role    TEXT NOT NULL CHECK (role IN ('reader', 'administrator')),
    created INTEGER NOT NULL
) WITHOUT ROWID;
