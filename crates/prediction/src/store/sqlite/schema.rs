//! The tables of the store, and how those of earlier versions become those of this one.

use rusqlite::Connection;

use crate::store::error::StoreError;

/// The schema, one step a version; `user_version` counts the steps taken. A step does not rewrite pictures: a folder
/// may be large, and its disk full.
const MIGRATIONS: [&str; 4] = [
    "
    CREATE TABLE predictions (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        status TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        started_at INTEGER,
        completed_at INTEGER,
        owed INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0,
        record TEXT NOT NULL
    ) STRICT;
    CREATE INDEX predictions_by_status ON predictions (status, seq);
    CREATE INDEX predictions_owed ON predictions (seq) WHERE owed;
    CREATE TABLE pictures (seq INTEGER PRIMARY KEY, png BLOB NOT NULL) STRICT;
",
    "
    ALTER TABLE predictions ADD COLUMN file TEXT;
    CREATE UNIQUE INDEX predictions_by_file ON predictions (file) WHERE file IS NOT NULL;
",
    // `rank` is null in rows of before: they come in the order of acceptance. `stop` is the status to end with.
    // Pictures of before stay in `pictures_2` until their predictions are removed.
    "
    ALTER TABLE predictions ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
    ALTER TABLE predictions ADD COLUMN units REAL NOT NULL DEFAULT 0;
    ALTER TABLE predictions ADD COLUMN rank REAL;
    ALTER TABLE predictions ADD COLUMN wire INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE predictions ADD COLUMN claim TEXT;
    ALTER TABLE predictions ADD COLUMN stop TEXT;
    ALTER TABLE predictions ADD COLUMN key TEXT;
    CREATE UNIQUE INDEX predictions_by_key ON predictions (tenant, key) WHERE key IS NOT NULL;
    CREATE INDEX predictions_ended ON predictions (seq, bytes, owed, status)
        WHERE status IN ('succeeded', 'failed', 'canceled');
    CREATE INDEX predictions_by_end ON predictions (completed_at, bytes, owed, status)
        WHERE status IN ('succeeded', 'failed', 'canceled') AND owed = 0;
    ALTER TABLE pictures RENAME TO pictures_2;
    CREATE TABLE pictures (
        seq INTEGER NOT NULL,
        n INTEGER NOT NULL,
        kind TEXT NOT NULL,
        media TEXT NOT NULL,
        file TEXT,
        bytes BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX pictures_by_seq ON pictures (seq, kind, n);
    CREATE UNIQUE INDEX pictures_by_file ON pictures (file) WHERE file IS NOT NULL;
    CREATE TABLE totals (one INTEGER PRIMARY KEY CHECK (one = 1), count INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
    INSERT INTO totals SELECT 1, count(*), coalesce(sum(bytes), 0) FROM predictions
        WHERE status IN ('succeeded', 'failed', 'canceled');
    CREATE TRIGGER total_inserted AFTER INSERT ON predictions WHEN new.status IN ('succeeded', 'failed', 'canceled') BEGIN
        UPDATE totals SET count = count + 1, bytes = bytes + new.bytes;
    END;
    CREATE TRIGGER total_deleted AFTER DELETE ON predictions WHEN old.status IN ('succeeded', 'failed', 'canceled') BEGIN
        UPDATE totals SET count = count - 1, bytes = bytes - old.bytes;
    END;
    CREATE TRIGGER total_updated AFTER UPDATE OF status, bytes ON predictions
        WHEN old.status IN ('succeeded', 'failed', 'canceled') OR new.status IN ('succeeded', 'failed', 'canceled') BEGIN
        UPDATE totals SET
            count = count - (old.status IN ('succeeded', 'failed', 'canceled')) + (new.status IN ('succeeded', 'failed', 'canceled')),
            bytes = bytes - old.bytes * (old.status IN ('succeeded', 'failed', 'canceled'))
                + new.bytes * (new.status IN ('succeeded', 'failed', 'canceled'));
    END;
",
    // Counted from here on.
    "
    CREATE TABLE usage (
        name TEXT PRIMARY KEY,
        predictions INTEGER NOT NULL,
        succeeded INTEGER NOT NULL,
        megapixels REAL NOT NULL,
        seconds REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
",
];

/// The version of a database, unless it is newer than this program.
pub(super) fn check(connection: &Connection) -> Result<usize, StoreError> {
    let version: usize = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > MIGRATIONS.len() {
        return Err(StoreError::Engine(format!(
            "its schema is of version {version}, newer than this program; use the newer program"
        )));
    }
    Ok(version)
}

/// Takes the steps of the schema that were not taken yet.
pub(super) fn migrate(connection: &Connection) -> Result<(), StoreError> {
    let version = check(connection)?;
    for (at, step) in MIGRATIONS.iter().enumerate().skip(version) {
        let step = format!("BEGIN IMMEDIATE; {step}; PRAGMA user_version = {}; COMMIT;", at + 1);
        if let Err(error) = connection.execute_batch(&step) {
            let _ = connection.execute_batch("ROLLBACK");
            return Err(error.into());
        }
    }
    Ok(())
}
