-- Version 1. A later version is a step of its own; tables and functions only grow, because nodes of two versions of the
-- program work side by side. Functions are made again with each step: one whose meaning changes gets another name.

CREATE SCHEMA syncdiffusion;

CREATE TABLE syncdiffusion.settings (name text PRIMARY KEY, value text NOT NULL);
INSERT INTO syncdiffusion.settings VALUES ('version', '1'), ('least_version', '1');

CREATE SEQUENCE syncdiffusion.node_numbers;
CREATE TABLE syncdiffusion.nodes (
    node bigint PRIMARY KEY,
    beat bigint NOT NULL DEFAULT 0,
    about jsonb NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);

-- One row: what is known of the queue without reading all of it.
CREATE TABLE syncdiffusion.board (
    -- The greatest rank that was ever claimed, where the row that had it is gone.
    low double precision NOT NULL DEFAULT 0,
    -- Nothing that waits has a smaller rank. Rows that do not wait any more are passed over below it, also where a held
    -- snapshot keeps the vacuum from removing them.
    floor double precision NOT NULL DEFAULT 0,
    -- The floor is raised to this when all transactions before `marked` have ended.
    mark double precision NOT NULL DEFAULT 0,
    marked xid8 NOT NULL DEFAULT '0',
    -- How much waited, and when that was.
    at timestamptz NOT NULL DEFAULT '-infinity',
    -- When the usage was summed up.
    summed timestamptz NOT NULL DEFAULT '-infinity',
    waiting bigint NOT NULL DEFAULT 0,
    units double precision NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO syncdiffusion.board DEFAULT VALUES;

-- What was drawn for each name. Ends are added row by row, and summed up by and by, so that none waits for another.
CREATE TABLE syncdiffusion.usage (
    name text PRIMARY KEY,
    predictions bigint NOT NULL,
    succeeded bigint NOT NULL,
    megapixels double precision NOT NULL,
    seconds double precision NOT NULL
);
CREATE TABLE syncdiffusion.usage_of_ends (LIKE syncdiffusion.usage INCLUDING ALL EXCLUDING INDEXES);

CREATE SEQUENCE syncdiffusion.numbers;
CREATE TABLE syncdiffusion.predictions (
    seq bigint PRIMARY KEY,
    id text NOT NULL UNIQUE,
    status text NOT NULL DEFAULT 'starting',
    tenant text NOT NULL,
    key text,
    units double precision NOT NULL,
    rank double precision NOT NULL,
    wire integer NOT NULL,
    -- Version of the model that it was accepted for, if one was known.
    version text,
    -- Who looks after its deadline and webhook.
    keeper bigint,
    -- Names the request that accepted it, so that one which lost the answer finds what it did.
    request uuid,
    -- Who holds it. The key refuses the claim of a node that was taken for dead.
    node bigint REFERENCES syncdiffusion.nodes,
    -- The token of the last claim. It stays with the end that it made, so that a node which lost the answer finds it.
    claim uuid,
    attempts integer NOT NULL DEFAULT 0,
    -- Whether it was ever claimed.
    begun boolean NOT NULL DEFAULT false,
    stop boolean NOT NULL DEFAULT false,
    queued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at bigint,
    completed_at bigint,
    owed boolean NOT NULL DEFAULT false,
    bytes bigint NOT NULL DEFAULT 0,
    file text,
    record text NOT NULL,
    CHECK (status IN ('starting', 'processing', 'succeeded', 'failed', 'canceled')),
    CHECK ((status = 'processing') = (node IS NOT NULL)),
    CHECK ((status IN ('succeeded', 'failed', 'canceled')) = (completed_at IS NOT NULL))
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01);
-- What moves through these indexes leaves dead rows in them, for as long as a snapshot is held. Each is for queries that
-- begin in the middle of it, at the floor or at what a node holds; the words of their conditions differ so that no
-- other query walks over all of it because it is small by the statistics.
CREATE UNIQUE INDEX predictions_key ON syncdiffusion.predictions (tenant, key) WHERE key IS NOT NULL;
CREATE INDEX predictions_waiting ON syncdiffusion.predictions (rank, seq) INCLUDE (units) WHERE status = 'starting';
CREATE INDEX predictions_of_tenant ON syncdiffusion.predictions (tenant, rank)
    WHERE node IS NULL AND completed_at IS NULL;
CREATE INDEX predictions_begun ON syncdiffusion.predictions (rank) WHERE begun;
CREATE INDEX predictions_held ON syncdiffusion.predictions (node, seq) WHERE node IS NOT NULL;
CREATE INDEX predictions_kept ON syncdiffusion.predictions (keeper) WHERE (owed OR completed_at IS NULL) IS TRUE;
CREATE INDEX predictions_by_status ON syncdiffusion.predictions (status, seq)
    WHERE status IN ('succeeded', 'failed', 'canceled');
CREATE INDEX predictions_ended ON syncdiffusion.predictions (seq) INCLUDE (bytes, owed)
    WHERE status IN ('succeeded', 'failed', 'canceled');
CREATE INDEX predictions_by_end ON syncdiffusion.predictions (completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX predictions_file ON syncdiffusion.predictions (file) WHERE file IS NOT NULL;

CREATE TABLE syncdiffusion.pictures (
    seq bigint NOT NULL REFERENCES syncdiffusion.predictions ON DELETE CASCADE,
    kind text NOT NULL,
    n integer NOT NULL,
    media text NOT NULL,
    file text,
    bytes bytea NOT NULL,
    PRIMARY KEY (seq, kind, n)
);
-- They are compressed already.
ALTER TABLE syncdiffusion.pictures ALTER bytes SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX pictures_file ON syncdiffusion.pictures (file) WHERE file IS NOT NULL;

-- Files of clients, to be used as inputs.
CREATE TABLE syncdiffusion.client_files (
    id text PRIMARY KEY,
    owner text NOT NULL,
    expires_at bigint NOT NULL,
    about text NOT NULL,
    size bigint NOT NULL,
    bytes bytea NOT NULL
);
ALTER TABLE syncdiffusion.client_files ALTER bytes SET STORAGE EXTERNAL;
CREATE INDEX client_files_owner ON syncdiffusion.client_files (owner);

-- What is watched on other nodes than the one that runs it, and how far it is.
CREATE UNLOGGED TABLE syncdiffusion.previews (
    seq bigint PRIMARY KEY,
    watched_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    step integer NOT NULL DEFAULT 0,
    width integer NOT NULL DEFAULT 0,
    height integer NOT NULL DEFAULT 0,
    image text
);

-- What running predictions say. Nothing depends on it, and a crash of the server empties it.
CREATE UNLOGGED TABLE syncdiffusion.progress (
    seq bigint PRIMARY KEY,
    claim uuid NOT NULL,
    logs text NOT NULL,
    metrics text NOT NULL
) WITH (fillfactor = 50);
