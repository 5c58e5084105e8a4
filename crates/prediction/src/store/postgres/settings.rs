//! Settings that all nodes share.

use std::sync::Arc;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::rows::{Value, query};

/// A setting that all nodes share, which is `made` if there was none.
pub(super) async fn setting(client: Arc<Client>, name: &'static str, made: String) -> Result<String, Error> {
    let values: [Value<'_>; 2] = [(&name, Type::TEXT), (&made, Type::TEXT)];
    let insert = "INSERT INTO syncdiffusion.settings VALUES ($1, $2) ON CONFLICT DO NOTHING";
    query(&client, insert, &values).await?;
    Ok(known(client, name).await?.unwrap_or(made))
}

/// A setting, if it was made.
pub(super) async fn known(client: Arc<Client>, name: &'static str) -> Result<Option<String>, Error> {
    let sql = "SELECT value FROM syncdiffusion.settings WHERE name = $1";
    Ok(query(&client, sql, &[(&name, Type::TEXT)]).await?.first().map(|row| row.get(0)))
}

/// Replaces a setting if it is as it was; whether it was.
pub(super) async fn replace(client: Arc<Client>, name: &'static str, was: &str, new: &str) -> Result<bool, Error> {
    let sql = "UPDATE syncdiffusion.settings SET value = $3 WHERE name = $1 AND value = $2 RETURNING name";
    let values: [Value<'_>; 3] = [(&name, Type::TEXT), (&was, Type::TEXT), (&new, Type::TEXT)];
    Ok(!query(&client, sql, &values).await?.is_empty())
}
