//! The tables of the store, and how those of earlier versions become those of this one.

use rusqlite::Connection;

use crate::store::StoreError;

/// The schema, one step a version; `user_version` counts the steps taken.
const MIGRATIONS: [&str; 2] = [
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
];

/// Takes the steps of the schema that were not taken yet.
pub(super) fn migrate(connection: &Connection) -> Result<(), StoreError> {
    let version: usize = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > MIGRATIONS.len() {
        return Err(StoreError::Engine(format!("they are of version {version}, newer than this program")));
    }
    for (at, step) in MIGRATIONS.iter().enumerate().skip(version) {
        connection.execute_batch(&format!("BEGIN; {step}; PRAGMA user_version = {}; COMMIT;", at + 1))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Sqlite, Store as _};

    #[tokio::test]
    async fn a_store_of_the_first_version_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let record = r#"{"prediction":{"completed_at":"2026-11-24T06:08:00.140349+00:00","created_at":"2026-11-24T06:08:00.140349+00:00",
            "error":null,"id":"old","input":{"prompt":"a","negative_prompt":"","width":512,"height":512,"guidance_scale":7.5,"sync_weight":20.0,
            "sync_decay_rate":0.99,"sync_freq":1,"sync_threshold":5,"num_inference_steps":50,"stride":16,"seed":2,"loop_closure":false},
            "logs":"","metrics":{},"model":null,"output":null,"started_at":null,"status":"succeeded",
            "urls":{"cancel":"c","get":"g","stream":"s"},"version":null},"seq":1,"attempts":1,"webhook":null,"deadline":null}"#;
        let connection = Connection::open(dir.path().join("predictions.sqlite")).unwrap();
        connection.execute_batch(&format!("{}; PRAGMA user_version = 1;", MIGRATIONS[0])).unwrap();
        let row = "INSERT INTO predictions (seq, id, status, attempts, record) VALUES (1, 'old', 'succeeded', 1, ?1)";
        connection.execute(row, [record]).unwrap();
        connection.execute("INSERT INTO pictures VALUES (1, x'00')", []).unwrap();
        drop(connection);
        for _ in 0..2 {
            let store = Sqlite::open(dir.path()).unwrap();
            let old = store.get("old").await.unwrap().unwrap();
            assert_eq!((old.record.file, old.picture.as_deref()), (None, Some(&[0][..])));
            assert!(store.file("old").await.unwrap().is_none());
        }
        let connection = Connection::open(dir.path().join("predictions.sqlite")).unwrap();
        connection.execute_batch("PRAGMA user_version = 99").unwrap();
        assert!(Sqlite::open(dir.path()).err().unwrap().to_string().contains("newer than this program"));
    }
}
