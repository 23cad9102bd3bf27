-- Work on alerts, words to search by, counts by the hour, packed payloads.

-- 0: the payload is JSON as text. n: zstd with dictionary n - 1 (0 is none).
ALTER TABLE alerts ADD COLUMN packing INTEGER NOT NULL DEFAULT 0;
-- 0 new, 1 acknowledged, 2 in progress, 3 closed.
ALTER TABLE alerts ADD COLUMN status INTEGER NOT NULL DEFAULT 0;
ALTER TABLE alerts ADD COLUMN disposition TEXT;
ALTER TABLE alerts ADD COLUMN assignee TEXT;
-- Raised by each act of a person: what If-Match is held to.
ALTER TABLE alerts ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
-- Bits: 1 its time lay ahead of our clock, 2 it grew after it was closed.
ALTER TABLE alerts ADD COLUMN flags INTEGER NOT NULL DEFAULT 0;
ALTER TABLE alerts ADD COLUMN acknowledged INTEGER;
ALTER TABLE alerts ADD COLUMN closed INTEGER;
-- The payload and the table of rules have it.
ALTER TABLE alerts DROP COLUMN title;

CREATE INDEX alerts_status ON alerts (status, time, seq);
CREATE INDEX alerts_assignee ON alerts (assignee, time, seq) WHERE assignee IS NOT NULL;

-- Folded and split by us: all that is no ASCII is part of a word. `contentless_delete` so that a row goes without its
-- old words.
CREATE VIRTUAL TABLE words USING fts5 (
    text, content = '', contentless_delete = 1, detail = none,
    tokenize = "ascii tokenchars '.:#'"
);

CREATE TABLE dictionaries (
    number INTEGER PRIMARY KEY,
    -- Rows stored when it was made.
    rows   INTEGER NOT NULL,
    bytes  BLOB NOT NULL
);

-- Alerts and their events by hour of their time; an agency's numbers hold those of all below it, '' those of all.
CREATE TABLE agency_hours (
    agency TEXT NOT NULL,
    hour   INTEGER NOT NULL,
    level  INTEGER NOT NULL,
    alerts INTEGER NOT NULL,
    events INTEGER NOT NULL,
    PRIMARY KEY (agency, hour, level)
) WITHOUT ROWID;
CREATE TABLE rule_hours (
    rule   TEXT NOT NULL,
    hour   INTEGER NOT NULL,
    level  INTEGER NOT NULL,
    alerts INTEGER NOT NULL,
    events INTEGER NOT NULL,
    PRIMARY KEY (rule, hour, level)
) WITHOUT ROWID;
CREATE INDEX rule_hours_hour ON rule_hours (hour, rule);

-- Every agency of which an alert is stored.
CREATE TABLE agencies_seen (id TEXT PRIMARY KEY) WITHOUT ROWID;

-- Everything that a person did. Rows are only added; each holds the hash of the one before.
CREATE TABLE acts (
    number INTEGER PRIMARY KEY,
    time   INTEGER NOT NULL,
    who    TEXT NOT NULL,
    alert  INTEGER,
    -- JSON: what was done, to what.
    what   TEXT NOT NULL,
    hash   BLOB NOT NULL
);
CREATE INDEX acts_alert ON acts (alert, number) WHERE alert IS NOT NULL;
CREATE TRIGGER acts_stay BEFORE UPDATE ON acts BEGIN SELECT RAISE(ABORT, 'acts are only added'); END;
CREATE TRIGGER acts_last BEFORE DELETE ON acts BEGIN SELECT RAISE(ABORT, 'acts are only added'); END;

-- Four roles, a part of the tree of agencies ('' is all of it), and an end.
CREATE TABLE api_tokens_with_scope (
    hash    BLOB PRIMARY KEY,
    name    TEXT NOT NULL,
    role    TEXT NOT NULL CHECK (role IN ('reader', 'analyst', 'manager', 'administrator')),
    scope   TEXT NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER
) WITHOUT ROWID;
INSERT INTO api_tokens_with_scope SELECT hash, name, role, '', created, NULL FROM api_tokens;
DROP TABLE api_tokens;
ALTER TABLE api_tokens_with_scope RENAME TO api_tokens;

-- The few whose clock was ahead: what a search by words must not miss.
CREATE INDEX alerts_ahead ON alerts (time) WHERE flags & 1 = 1;

-- Alerts of the earlier version get words, counts and a packed payload when the store opens, in steps: up to `carry`,
-- done up to `carried`.
INSERT INTO versions SELECT 'carry', COALESCE(MAX(seq), 0) FROM alerts;
INSERT INTO versions VALUES ('carried', 0);
