-- Personas, users with their history, soft prompts, vectors, reports, jobs.
--
-- `owner` is `user:<id>`, `persona:<name>` or `name:<name>`. Columns named `sealed` hold personal content as bytes of its
-- own form (JSON, f32); `key` 0 says that they are not encrypted. Times are Unix seconds.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tenants (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    key_sha256 TEXT,
    created INTEGER NOT NULL
) STRICT;

INSERT INTO tenants (id, name, created) VALUES (1, 'local', unixepoch());

CREATE TABLE blobs (
    sha256 TEXT PRIMARY KEY,
    bytes INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The last version of each name outlives the persona: a name that is made again goes on counting.
CREATE TABLE persona_names (
    tenant INTEGER NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    last_version INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

-- A version never changes.
CREATE TABLE personas (
    tenant INTEGER NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    spec TEXT NOT NULL,
    digest TEXT NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (tenant, name, version)
) STRICT;

CREATE TABLE users (
    tenant INTEGER NOT NULL REFERENCES tenants (id),
    id TEXT NOT NULL,
    created INTEGER NOT NULL,
    -- Items in the history now; the number of the last item ever added; goes up with every change of the history.
    items INTEGER NOT NULL DEFAULT 0,
    last_item INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE history (
    tenant INTEGER NOT NULL REFERENCES tenants (id),
    owner TEXT NOT NULL,
    id INTEGER NOT NULL,
    time INTEGER,
    kind TEXT NOT NULL,
    session TEXT,
    source TEXT,
    weight REAL NOT NULL,
    dwell_s REAL,
    sealed BLOB NOT NULL,
    key INTEGER NOT NULL DEFAULT 0,
    text_hmac BLOB NOT NULL,
    tokens INTEGER,
    keep REAL,
    keep_reasons TEXT,
    created INTEGER NOT NULL,
    PRIMARY KEY (tenant, owner, id),
    UNIQUE (tenant, owner, text_hmac)
) STRICT;

CREATE TABLE embeddings (
    tenant INTEGER NOT NULL REFERENCES tenants (id),
    owner TEXT NOT NULL,
    encoder_sha TEXT NOT NULL,
    kind TEXT NOT NULL,
    id INTEGER NOT NULL,
    dim INTEGER NOT NULL,
    dtype TEXT NOT NULL,
    sealed BLOB NOT NULL,
    key INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, owner, encoder_sha, kind, id)
) STRICT;

CREATE TABLE soft_prompts (
    tenant INTEGER NOT NULL REFERENCES tenants (id),
    owner TEXT NOT NULL,
    weights TEXT NOT NULL,
    version INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    d_model INTEGER NOT NULL,
    dtype TEXT NOT NULL,
    spec TEXT NOT NULL,
    sealed BLOB NOT NULL,
    key INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    PRIMARY KEY (tenant, owner, weights)
) STRICT;

CREATE TABLE vectors (
    tenant INTEGER NOT NULL REFERENCES tenants (id),
    weights TEXT NOT NULL,
    name TEXT NOT NULL,
    spec TEXT NOT NULL,
    blob TEXT NOT NULL REFERENCES blobs (sha256),
    created INTEGER NOT NULL,
    PRIMARY KEY (tenant, weights, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX vectors_by_blob ON vectors (blob);

-- What was measured once on a model, by name.
CREATE TABLE model_facts (
    weights TEXT NOT NULL,
    name TEXT NOT NULL,
    spec TEXT NOT NULL,
    PRIMARY KEY (weights, name)
) STRICT;

CREATE TABLE reports (
    tenant INTEGER NOT NULL REFERENCES tenants (id),
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    spec TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT;

CREATE INDEX reports_by_subject ON reports (tenant, kind, subject, id);

CREATE TABLE jobs (
    tenant INTEGER NOT NULL REFERENCES tenants (id),
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    -- The owner or name that it works for, where there is one.
    subject TEXT,
    state TEXT NOT NULL,
    done INTEGER NOT NULL,
    total INTEGER,
    message TEXT NOT NULL,
    result TEXT,
    error TEXT,
    created INTEGER NOT NULL,
    changed INTEGER NOT NULL
) STRICT;
