//! Previews that one node shows another: only while somebody watches, and lost in a crash.

use std::sync::Arc;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::looks::QUICK;
use super::rows::{Value, number, query};
use crate::preview::Preview;

/// Says that predictions are watched; their newest previews.
pub(super) async fn watch(client: Arc<Client>, seqs: &[u64]) -> Result<Vec<(u64, Preview)>, Error> {
    let numbers: Vec<i64> = seqs.iter().map(|seq| number(*seq)).collect();
    let sql = format!(
        "{QUICK} INSERT INTO syncdiffusion.previews AS v (seq) SELECT w.seq FROM quick, unnest($1) AS w (seq)
        ON CONFLICT (seq) DO UPDATE SET watched_at = clock_timestamp()
        RETURNING v.seq, v.step, v.width, v.height, v.image"
    );
    let rows = query(&client, &sql, &[(&numbers, Type::INT8_ARRAY)]).await?;
    let shown = rows.iter().filter_map(|row| {
        let image: Option<&str> = row.get(4);
        let number = |at: usize| row.get::<_, i32>(at) as u32;
        let (step, width, height) = (number(1), number(2), number(3));
        Some((row.get::<_, i64>(0) as u64, Preview { step, width, height, image: image?.into() }))
    });
    Ok(shown.collect())
}

/// Stores previews of what is watched, and tells what is; what nobody watches any more goes.
pub(super) async fn show(
    client: Arc<Client>,
    runs: &[u64],
    previews: &[(u64, Arc<Preview>)],
) -> Result<Vec<u64>, Error> {
    let runs: Vec<i64> = runs.iter().map(|seq| number(*seq)).collect();
    let sql = "SELECT seq, watched_at > clock_timestamp() - interval '5 seconds' FROM syncdiffusion.previews";
    let rows = query(&client, sql, &[]).await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let watched: Vec<i64> =
        rows.iter().filter(|row| row.get(1)).map(|row| row.get(0)).filter(|seq| runs.contains(seq)).collect();
    for (seq, Preview { step, width, height, image }) in previews.iter().map(|(seq, preview)| (seq, &**preview)) {
        let (seq, step, width, height) = (number(*seq), *step as i32, *width as i32, *height as i32);
        let sql = format!(
            "{QUICK} UPDATE syncdiffusion.previews SET step = $2, width = $3, height = $4, image = $5 FROM quick
            WHERE seq = $1"
        );
        let values: [Value<'_>; 5] = [
            (&seq, Type::INT8),
            (&step, Type::INT4),
            (&width, Type::INT4),
            (&height, Type::INT4),
            (&&**image, Type::TEXT),
        ];
        query(&client, &sql, &values).await?;
    }
    if rows.iter().any(|row| !row.get::<_, bool>(1)) {
        let old = format!(
            "{QUICK} DELETE FROM syncdiffusion.previews USING quick WHERE watched_at < clock_timestamp() - interval '1 minute'"
        );
        query(&client, &old, &[]).await?;
    }
    Ok(watched.into_iter().map(|seq| seq as u64).collect())
}
