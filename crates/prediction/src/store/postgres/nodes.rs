//! Nodes: who is registered, who leaves, and what the dead and those who left have left behind.

use std::sync::Arc;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

use super::rows::{self, Value, number, one, query};
use crate::store::error::StoreError;
use crate::store::record::Record;
use crate::store::usage::Usage;
use crate::time::Time;

/// How many are adopted at a time.
pub(super) const MAX_ORPHANS: usize = 500;
/// What somebody looks after.
const KEPT: &str = "(owed OR completed_at IS NULL)";
const MINE: &str = "(keeper = $1 AND id = ANY ($2))";

/// Registers a node.
pub(super) async fn register(client: &Client) -> Result<u64, Error> {
    let sql = "INSERT INTO syncdiffusion.nodes (node) VALUES (nextval('syncdiffusion.node_numbers')) RETURNING node";
    Ok(one(query(client, sql, &[]).await?).map_or(0, |row| row.get::<_, i64>(0) as u64))
}

/// A node that holds nothing is no more, and nobody looks after what it accepted.
pub(super) async fn leave(client: Arc<Client>, node: u64) -> Result<(), Error> {
    let sql = format!(
        "WITH gone AS (
            DELETE FROM syncdiffusion.nodes WHERE node = $1
                AND NOT EXISTS (SELECT FROM syncdiffusion.predictions WHERE node = $1)
            RETURNING node
        )
        UPDATE syncdiffusion.predictions SET keeper = NULL FROM gone
            WHERE keeper = gone.node AND {KEPT} IS TRUE"
    );
    query(&client, &sql, &[(&number(node), Type::INT8)]).await.map(drop)
}

/// What a dead node held, with the ends that may come of it.
#[derive(Default)]
pub(super) struct Estate {
    numbers: Vec<i64>,
    tokens: Vec<Uuid>,
    canceled: Vec<String>,
    failed: Vec<String>,
    owing: Vec<bool>,
    lasted: Vec<f64>,
    pub(super) ends: Vec<(Record, Record)>,
}

impl Estate {
    /// Adds what is held, with its end as canceled and as failed.
    pub(super) fn add(&mut self, row: &Row, (canceled, failed): (Record, Record)) -> Result<(), StoreError> {
        self.numbers.push(row.get(0));
        self.tokens.push(row.get(5));
        self.canceled.push(rows::text(&canceled)?);
        self.failed.push(rows::text(&failed)?);
        self.owing.push(canceled.owes());
        self.lasted.push(Usage::of("", &canceled).seconds);
        self.ends.push((canceled, failed));
        Ok(())
    }
}

/// What a node holds.
pub(super) async fn held_by(client: Arc<Client>, node: u64) -> Result<Vec<Row>, Error> {
    let sql = format!(
        "SELECT {}, p.claim, p.id FROM syncdiffusion.predictions p WHERE p.status = 'processing' AND p.node = $1",
        rows::COLUMNS
    );
    query(&client, &sql, &[(&number(node), Type::INT8)]).await
}

/// Takes a node for dead. The answer is `moved`, `again` or `reaped`, and the numbers of what was canceled and failed.
pub(super) async fn reap(
    client: Arc<Client>,
    (node, beat): (u64, u64),
    most: u32,
    now: Time,
    estate: &Estate,
) -> Result<(String, Vec<i64>, Vec<i64>), Error> {
    let (node, beat, most, now) = (number(node), number(beat), most as i32, now.micros());
    let values: [Value<'_>; 10] = [
        (&node, Type::INT8),
        (&beat, Type::INT8),
        (&most, Type::INT4),
        (&now, Type::INT8),
        (&estate.numbers, Type::INT8_ARRAY),
        (&estate.tokens, Type::UUID_ARRAY),
        (&estate.canceled, Type::TEXT_ARRAY),
        (&estate.failed, Type::TEXT_ARRAY),
        (&estate.owing, Type::BOOL_ARRAY),
        (&estate.lasted, Type::FLOAT8_ARRAY),
    ];
    let sql = "SELECT outcome, coalesce(canceled, '{}'), coalesce(failed, '{}')
        FROM syncdiffusion.reap($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let row = one(query(&client, sql, &values).await?);
    Ok(row.map_or_else(Default::default, |row| (row.get(0), row.get(1), row.get(2))))
}

/// What nobody looks after, and what this node may look after without knowing (`lost`), but for `unreadable` ones as
/// long as they have not ended since.
pub(super) async fn orphans(
    client: Arc<Client>,
    node: u64,
    lost: Vec<String>,
    (unreadable, ended): (Vec<i64>, Vec<bool>),
) -> Result<Vec<Row>, Error> {
    // Most often none is lost, and then what this node looks after is not walked over.
    let mine = if lost.is_empty() { "false" } else { MINE };
    let sql = format!(
        "SELECT {}, p.completed_at IS NOT NULL, p.id FROM syncdiffusion.predictions p
        WHERE {KEPT} IS TRUE AND (keeper IS NULL OR {mine})
            AND (p.seq, p.completed_at IS NOT NULL) NOT IN (SELECT * FROM unnest($3, $4))
        ORDER BY p.seq LIMIT {MAX_ORPHANS}",
        rows::COLUMNS
    );
    let values: [Value<'_>; 4] = [
        (&number(node), Type::INT8),
        (&lost, Type::TEXT_ARRAY),
        (&unreadable, Type::INT8_ARRAY),
        (&ended, Type::BOOL_ARRAY),
    ];
    query(&client, &sql, &values).await
}

/// Looks after orphans from now on.
pub(super) async fn adopt(
    client: Arc<Client>,
    node: u64,
    lost: Vec<String>,
    orphans: Vec<i64>,
) -> Result<Vec<Row>, Error> {
    let sql = format!(
        "WITH me AS MATERIALIZED (SELECT node FROM syncdiffusion.holders WHERE node = $1 FOR KEY SHARE),
        found AS MATERIALIZED (
            SELECT seq FROM syncdiffusion.predictions
            WHERE seq = ANY ($3) AND {KEPT} AND (keeper IS NULL OR {MINE}) ORDER BY seq FOR UPDATE SKIP LOCKED
        )
        UPDATE syncdiffusion.predictions p SET keeper = me.node FROM me, found WHERE p.seq = found.seq
        RETURNING {}",
        rows::COLUMNS
    );
    let values: [Value<'_>; 3] = [(&number(node), Type::INT8), (&lost, Type::TEXT_ARRAY), (&orphans, Type::INT8_ARRAY)];
    query(&client, &sql, &values).await
}
