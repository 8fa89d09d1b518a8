-- What each column means is told where it is used: claudeproxy/store and claudeproxy/ledger.

CREATE TABLE schema_version (
    version INTEGER PRIMARY KEY,
    applied TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- Nodes, by the clock of this server.

CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    seen TIMESTAMPTZ NOT NULL
);

CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    node TEXT NOT NULL REFERENCES nodes ON DELETE CASCADE
);
CREATE INDEX leases_by_node ON leases (node);

-- What clients have asked to be stored.

CREATE TABLE responses (
    id TEXT PRIMARY KEY,
    previous TEXT,
    response TEXT NOT NULL,
    input TEXT NOT NULL,
    size BIGINT NOT NULL,
    used DOUBLE PRECISION NOT NULL,
    key TEXT,
    node TEXT
);
CREATE INDEX responses_by_use ON responses (used, size);

CREATE TABLE events (
    response TEXT PRIMARY KEY REFERENCES responses ON DELETE CASCADE,
    data BYTEA NOT NULL
);

CREATE TABLE conversations (
    id TEXT PRIMARY KEY,
    created BIGINT NOT NULL,
    metadata TEXT NOT NULL,
    size BIGINT NOT NULL,
    used DOUBLE PRECISION NOT NULL,
    key TEXT
);
CREATE INDEX conversations_by_use ON conversations (used, size);

CREATE TABLE items (
    conversation TEXT NOT NULL REFERENCES conversations ON DELETE CASCADE,
    place BIGINT NOT NULL,
    id TEXT NOT NULL,
    item TEXT NOT NULL,
    PRIMARY KEY (conversation, place),
    UNIQUE (conversation, id)
);

CREATE TABLE completions (
    place BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    model TEXT NOT NULL,
    metadata TEXT NOT NULL,
    completion TEXT NOT NULL,
    messages TEXT NOT NULL,
    size BIGINT NOT NULL,
    used DOUBLE PRECISION NOT NULL,
    key TEXT
);
CREATE INDEX completions_by_use ON completions (used, size);

-- What turns have used.

CREATE TABLE turns (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    time DOUBLE PRECISION NOT NULL,
    request_id TEXT NOT NULL UNIQUE,
    key TEXT,
    dialect TEXT NOT NULL,
    client TEXT NOT NULL,
    model TEXT NOT NULL,
    answered_by TEXT,
    placement TEXT NOT NULL,
    answers INTEGER NOT NULL,
    body_bytes BIGINT NOT NULL,
    cli_bytes BIGINT NOT NULL,
    reply_bytes BIGINT NOT NULL,
    queue_ms DOUBLE PRECISION NOT NULL,
    first_token_ms DOUBLE PRECISION,
    total_ms DOUBLE PRECISION NOT NULL,
    status INTEGER,
    outcome TEXT NOT NULL,
    code TEXT,
    cause TEXT,
    windows_before TEXT NOT NULL,
    windows_after TEXT NOT NULL,
    paid_by TEXT,
    list_price DOUBLE PRECISION,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cache_read_tokens BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL,
    cache_write_1h_tokens BIGINT NOT NULL
);
CREATE INDEX turns_by_time ON turns (time);
CREATE INDEX failed_turns ON turns (time) WHERE outcome <> 'ok' AND outcome <> 'client left';
CREATE INDEX paid_turns ON turns (time) WHERE paid_by = 'paid';

CREATE TABLE hours (
    hour BIGINT NOT NULL,
    key TEXT NOT NULL,
    model TEXT NOT NULL,
    client TEXT NOT NULL,
    turns BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    paid BIGINT NOT NULL,
    unpriced BIGINT NOT NULL,
    list_price DOUBLE PRECISION NOT NULL,
    saved DOUBLE PRECISION NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cache_read_tokens BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL,
    cache_write_1h_tokens BIGINT NOT NULL,
    PRIMARY KEY (hour, key, model, client)
);

-- What keys have used of their quotas, and of the plan's windows.

CREATE TABLE counts (
    key TEXT NOT NULL,
    period TEXT NOT NULL,
    begin DOUBLE PRECISION NOT NULL,
    requests BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    PRIMARY KEY (key, period)
);

CREATE TABLE window_seen (
    name TEXT PRIMARY KEY,
    used DOUBLE PRECISION NOT NULL,
    resets DOUBLE PRECISION
);

CREATE TABLE key_shares (
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    used DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (name, key)
);

-- What is known of the plan of each account.

CREATE TABLE plan (
    account TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    changed DOUBLE PRECISION NOT NULL
);
