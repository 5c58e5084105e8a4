//! What is asked and said without any order: beats, news, records and pictures. Pictures have a connection of their
//! own.

use std::sync::Arc;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

use super::rows::{self, Body, COLUMNS, Found, Value, number, query, stored_id};
use crate::store::error::StoreError;
use crate::store::record::{Stored, Which};
use crate::store::usage::Usage;
use crate::store::work::{About, Awaited, Beat, Board, Claim, News, Peer, Place, Said};
use crate::time::Time;

/// Lets the rest of a statement be committed without waiting for the disk.
pub(super) const QUICK: &str = "WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))";

fn board(row: &Row) -> Board {
    Board { waiting: row.get::<_, i64>(0) as u64, units: row.get(1) }
}

/// Moves the beat of a node; `None` if it is not known.
pub(super) async fn beat(
    client: Arc<Client>,
    (node, from): (u64, u64),
    about: String,
    said: Arc<Vec<Said>>,
) -> Result<Option<Beat>, Error> {
    let (me, from) = (number(node), number(from));
    let move_on = format!(
        "{QUICK} UPDATE syncdiffusion.nodes SET beat = beat + 1, about = $2::text::jsonb FROM quick WHERE node = $1
        RETURNING beat"
    );
    let values: [Value<'_>; 2] = [(&me, Type::INT8), (&about, Type::TEXT)];
    let moved = query(&client, &move_on, &values);
    let progress = progress(&client, &said);
    let refresh = format!("{QUICK} SELECT syncdiffusion.refresh() FROM quick");
    let refresh = query(&client, &refresh, &[]);
    let held = held_from(&client, me, from);
    let nodes = query(&client, "SELECT node, beat, about::text FROM syncdiffusion.nodes ORDER BY node", &[]);
    let waiting = "SELECT waiting, units, (SELECT value FROM syncdiffusion.settings WHERE name = 'last_model')
        FROM syncdiffusion.waits()";
    let waiting = query(&client, waiting, &[]);
    let (moved, (), _, held, nodes, waiting) =
        tokio::try_join!(biased; moved, progress, refresh, held, nodes, waiting)?;
    if moved.is_empty() {
        return Ok(None);
    }
    let held = held.iter().map(|row| {
        let (seq, token) = rows::claim_of(row);
        Claim { seq, token }
    });
    let nodes = nodes.iter().map(|row| Peer {
        node: row.get::<_, i64>(0) as u64,
        beat: row.get::<_, i64>(1) as u64,
        about: serde_json::from_str::<About>(row.get(2)).unwrap_or_default(),
    });
    let nodes: Vec<Peer> = nodes.collect();
    let board = waiting.first().map(board).unwrap_or_default();
    let last = waiting.first().and_then(|row| serde_json::from_str(row.get::<_, Option<&str>>(2)?).ok());
    let last = remember(&client, &nodes, last).await;
    Ok(Some(Beat::Alive { node, held: held.collect(), nodes, board, last: last.map(Box::new) }))
}

/// What the newest node with a ready worker said last: stored where it is not what was stored before, so that it
/// outlives all of them.
async fn remember(client: &Client, nodes: &[Peer], last: Option<About>) -> Option<About> {
    // The newest of them, so that all nodes agree.
    let Some(told) = nodes.iter().map(|peer| &peer.about).rfind(|about| about.draws()) else { return last };
    if last.as_ref().is_some_and(|last| !told.differs(last)) {
        return last;
    }
    let told = told.lasting();
    let sql = format!(
        "{QUICK} INSERT INTO syncdiffusion.settings AS s SELECT 'last_model', $1 FROM quick
        ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE s.value <> excluded.value"
    );
    let text = serde_json::to_string(&told).unwrap_or_default();
    if let Err(error) = query(client, &sql, &[(&text, Type::TEXT)]).await {
        // The next beat tries again.
        tracing::debug!(%error, "the model cannot be remembered");
    }
    Some(told)
}

/// How many predictions are looked at to count those of each version: those that nobody draws gather at the front.
const MAX_COUNTED: usize = 10_000;

/// How much waits for each version.
pub(super) async fn by_version(client: Arc<Client>) -> Result<Vec<(String, Board)>, Error> {
    let sql = format!(
        "SELECT count(*), sum(w.units), w.version FROM (
            SELECT p.units, p.version FROM syncdiffusion.predictions p
            WHERE p.status = 'starting' AND p.rank >= (SELECT floor FROM syncdiffusion.board)
            ORDER BY p.rank, p.seq LIMIT {MAX_COUNTED}
        ) w WHERE w.version IS NOT NULL GROUP BY w.version ORDER BY w.version"
    );
    Ok(query(&client, &sql, &[]).await?.iter().map(|row| (row.get(2), board(row))).collect())
}

/// What a node holds, of the numbers from one on: what is dead below it is not walked over.
async fn held_from(client: &Client, me: i64, from: i64) -> Result<Vec<Row>, Error> {
    let sql = "SELECT seq, claim FROM syncdiffusion.predictions
        WHERE node = $1 AND (node, seq) >= ($1, $2) ORDER BY seq";
    query(client, sql, &[(&me, Type::INT8), (&from, Type::INT8)]).await
}

/// Stores what running predictions say.
async fn progress(client: &Client, said: &[Said]) -> Result<(), Error> {
    if said.is_empty() {
        return Ok(());
    }
    let numbers: Vec<i64> = said.iter().map(|said| number(said.claim.seq)).collect();
    let tokens: Vec<Uuid> = said.iter().map(|said| said.claim.token).collect();
    // A text of PostgreSQL holds no zero.
    let logs: Vec<String> = said.iter().map(|said| said.logs.replace('\0', "\u{fffd}")).collect();
    let metrics: Vec<String> =
        said.iter().map(|said| serde_json::to_string(&said.metrics).unwrap_or_default()).collect();
    let sql = format!(
        "{QUICK} INSERT INTO syncdiffusion.progress AS g (seq, claim, logs, metrics)
        SELECT s.seq, s.claim, s.logs, s.metrics FROM quick, unnest($1, $2, $3, $4) AS s (seq, claim, logs, metrics)
            JOIN syncdiffusion.predictions p ON p.seq = s.seq AND p.claim = s.claim AND p.status = 'processing'
        ON CONFLICT (seq) DO UPDATE SET metrics = excluded.metrics, claim = excluded.claim,
            logs = CASE WHEN g.claim = excluded.claim THEN g.logs || excluded.logs ELSE excluded.logs END"
    );
    let values: [Value<'_>; 4] = [
        (&numbers, Type::INT8_ARRAY),
        (&tokens, Type::UUID_ARRAY),
        (&logs, Type::TEXT_ARRAY),
        (&metrics, Type::TEXT_ARRAY),
    ];
    query(client, &sql, &values).await.map(drop)
}

/// What is to stop on a node, and what has become of the awaited.
pub(super) async fn news(
    client: Arc<Client>,
    (node, from): (u64, u64),
    of: Arc<Vec<Awaited>>,
) -> Result<(Vec<Row>, Vec<Row>), Error> {
    let (me, from) = (number(node), number(from));
    let stops = "SELECT seq, claim FROM syncdiffusion.predictions
        WHERE node = $1 AND (node, seq) >= ($1, $2) AND stop ORDER BY seq";
    let values: [Value<'_>; 2] = [(&me, Type::INT8), (&from, Type::INT8)];
    let stops = query(&client, stops, &values);
    if of.is_empty() {
        return Ok((stops.await?, Vec::new()));
    }
    let numbers: Vec<i64> = of.iter().map(|awaited| number(awaited.seq)).collect();
    let ids: Vec<_> = of.iter().map(|awaited| stored_id(&awaited.id)).collect();
    let read: Vec<i32> = of.iter().map(|awaited| i32::try_from(awaited.read).unwrap_or(i32::MAX - 1)).collect();
    // Records are sent of what has ended only.
    let sql = "SELECT p.seq, CASE WHEN p.completed_at IS NULL THEN '' ELSE p.record END, p.status, p.attempts,
            p.started_at, substr(convert_to(g.logs, 'UTF8'), a.read + 1), g.metrics
        FROM unnest($1, $2, $3) WITH ORDINALITY AS a (seq, id, read, at)
            LEFT JOIN syncdiffusion.predictions p ON p.seq = a.seq AND p.id = a.id
            LEFT JOIN syncdiffusion.progress g ON g.seq = p.seq AND g.claim = p.claim AND p.status = 'processing'
        ORDER BY a.at";
    let values: [Value<'_>; 3] = [(&numbers, Type::INT8_ARRAY), (&ids, Type::TEXT_ARRAY), (&read, Type::INT4_ARRAY)];
    tokio::try_join!(biased; stops, query(&client, sql, &values))
}

/// What a row of [`news`] says.
pub(super) fn told(row: &Row, awaited: &Awaited) -> Result<News, StoreError> {
    let seq = awaited.seq;
    let Some(status) = row.get::<_, Option<&str>>(2) else { return Ok(News::Gone { seq }) };
    let attempts = row.get::<_, i32>(3) as u32;
    Ok(match status {
        "starting" => News::Waits { seq, attempts },
        "processing" => News::Runs {
            seq,
            attempts,
            started_at: Time::from_micros(row.get::<_, Option<i64>>(4).unwrap_or_default()),
            logs: row.get::<_, Option<Vec<u8>>>(5).and_then(|logs| String::from_utf8(logs).ok()).unwrap_or_default(),
            metrics: Box::new(rows::metrics(row.get(6))),
        },
        _ => News::Ended(Box::new(rows::record(row)?)),
    })
}

/// How many wait before a prediction. Where predictions of several versions wait (`mixed`), only those count that the
/// same nodes could draw, for which rows are read and not the index alone.
pub(super) async fn place(client: Arc<Client>, seq: i64, mixed: bool) -> Result<Option<Place>, Error> {
    let same = if mixed { "AND (p.version = w.version OR p.version IS NULL OR w.version IS NULL)" } else { "" };
    let sql = format!(
        "WITH w AS MATERIALIZED (
            SELECT seq, rank, status, version FROM syncdiffusion.predictions WHERE seq = $1
        ) SELECT b.count, b.units FROM w, LATERAL (
            SELECT count(*), coalesce(sum(p.units), 0) AS units FROM syncdiffusion.predictions p
            WHERE p.status = 'starting' AND p.rank >= (SELECT floor FROM syncdiffusion.board)
                AND (p.rank, p.seq) < (w.rank, w.seq) {same}
        ) b WHERE w.status = 'starting'"
    );
    let rows = query(&client, &sql, &[(&seq, Type::INT8)]).await?;
    Ok(rows.first().map(|row| Place { before: row.get::<_, i64>(0) as u64, units: row.get(1) }))
}

/// Names a prediction.
#[derive(Clone, Copy)]
pub(super) enum By<'a> {
    Id(&'a str),
    Seq(i64),
    /// By tenant and `Idempotency-Key`.
    Key(&'a str, &'a str),
}

/// A prediction without its pictures.
pub(super) async fn stored(client: Arc<Client>, by: By<'_>) -> Result<Option<Result<Stored, StoreError>>, Error> {
    let sql = |is: &str| format!("SELECT {COLUMNS}, p.owed FROM syncdiffusion.predictions p WHERE {is}");
    let rows = match by {
        By::Id(id) => query(&client, &sql("p.id = $1"), &[(&stored_id(id), Type::TEXT)]).await?,
        By::Seq(seq) => query(&client, &sql("p.seq = $1"), &[(&seq, Type::INT8)]).await?,
        By::Key(tenant, key) => {
            let values: [Value<'_>; 2] = [(&tenant, Type::TEXT), (&key, Type::TEXT)];
            query(&client, &sql("p.tenant = $1 AND p.key = $2"), &values).await?
        }
    };
    let Some(row) = rows.first() else { return Ok(None) };
    let record = match rows::record(row) {
        Ok(record) => record,
        Err(error) => return Ok(Some(Err(error))),
    };
    Ok(Some(Ok(Stored { record, picture: None, more: Vec::new(), owed: row.get(5) })))
}

/// The first picture of what has ended, and the others if there are several, wherever they are.
pub(super) async fn outputs(client: Arc<Client>, seq: i64, several: bool) -> Result<(Option<Body>, Vec<Body>), Error> {
    let first = rows::picture(&client, seq, &Which::FIRST).await?.map(|found| found.body);
    let more = if several { rows::more(&client, seq).await? } else { Vec::new() };
    Ok((first, more))
}

/// A picture of the prediction of an id.
pub(super) async fn picture(client: Arc<Client>, id: &str, which: &Which) -> Result<Option<Found>, Error> {
    match rows::seq(&client, id).await? {
        Some(seq) => rows::picture(&client, seq, which).await,
        None => Ok(None),
    }
}

/// What was drawn for each name.
pub(super) async fn usage(client: Arc<Client>) -> Result<Vec<Usage>, Error> {
    let sql = "SELECT name, sum(predictions)::bigint, sum(succeeded)::bigint, sum(megapixels), sum(seconds)
        FROM (TABLE syncdiffusion.usage UNION ALL TABLE syncdiffusion.usage_of_ends) counted
        GROUP BY name ORDER BY name COLLATE \"C\"";
    let read = |row: &Row| Usage {
        name: row.get(0),
        predictions: row.get::<_, i64>(1) as u64,
        succeeded: row.get::<_, i64>(2) as u64,
        megapixels: row.get(3),
        seconds: row.get(4),
    };
    Ok(query(&client, sql, &[]).await?.iter().map(read).collect())
}

/// What is served under a name.
pub(super) async fn file(client: Arc<Client>, name: &str) -> Result<Option<Body>, Error> {
    if name.contains('\0') {
        return Ok(None);
    }
    if let Some(body) = rows::named(&client, name).await? {
        return Ok(Some(body));
    }
    let first = "SELECT seq FROM syncdiffusion.predictions WHERE file = $1";
    match query(&client, first, &[(&name, Type::TEXT)]).await?.first() {
        Some(row) => Ok(rows::picture(&client, row.get(0), &Which::FIRST).await?.map(|found| found.body)),
        None => Ok(None),
    }
}
