//! Which bucket the servers of a database have their pictures in. The first that names one decides; the others take it
//! from the database, and see that it is the same one.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::link::Link;
use super::looks::QUICK;
use super::place::{Place, name};
use super::rows::{Value, query};
use super::schema::VERSION;
use crate::bucket::{Access, split};
use crate::store::error::StoreError;

/// An object in the folder of a database, which says who may remove objects from it. See [`super::orphans`].
pub(super) const ROUND: &str = "servers";
/// An object beside it, which says that two databases have this folder. Nobody removes anything while it is there.
pub(super) const MARK: &str = "two-databases";
/// The setting with the rounds of removal so far, the last ones.
pub(super) const ROUNDS: &str = "pictures_rounds";
/// The setting with the time of the last one.
pub(super) const SWEPT: &str = "pictures_swept";
/// How long it is watched whether servers of an older version are alive, which beat once a second.
const WATCH: Duration = Duration::from_secs(3);

/// A bucket, as the settings name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// `s3://bucket` or `s3://bucket/prefix`.
    url: String,
    /// Address of its store; empty for Amazon's.
    endpoint: String,
    /// The folder of this database.
    folder: String,
}

impl Known {
    /// The bucket as this node reaches it: by its own address of the store, or by that of the settings.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn place(&self, access: &Access) -> Result<Place, StoreError> {
        let own = access.endpoint();
        let shared = Some(&self.endpoint).filter(|endpoint| !endpoint.is_empty());
        let access = Access { endpoint: own.or_else(|| shared.cloned()), ..access.clone() };
        Place::new(&self.url, &self.folder, &access)
    }
}

/// The bucket of the settings, if they name one.
pub(super) async fn known(client: Arc<Client>) -> Result<Option<Known>, Error> {
    let sql = "SELECT name, value FROM syncdiffusion.settings WHERE name LIKE 'pictures%'";
    let rows = query(&client, sql, &[]).await?;
    let value = |name: &str| rows.iter().find(|row| row.get::<_, &str>(0) == name).map(|row| row.get::<_, String>(1));
    Ok(value("pictures").zip(value("pictures_folder")).map(|(url, folder)| {
        let endpoint = value("pictures_endpoint").unwrap_or_default();
        Known { url, endpoint, folder }
    }))
}

/// Writes the settings, unless another node was quicker. From now on programs that know no bucket are not started.
async fn write(client: Arc<Client>, known: &Known, round: &str) -> Result<(), Error> {
    let Known { url, endpoint, folder } = known;
    let names: &[&str] = &["pictures", "pictures_endpoint", "pictures_folder", ROUNDS, SWEPT];
    let made: &[&str] = &[url, endpoint, folder, round, "0"];
    let sql = "WITH made AS (
            INSERT INTO syncdiffusion.settings SELECT * FROM unnest($1, $2) ON CONFLICT DO NOTHING RETURNING name
        )
        UPDATE syncdiffusion.settings SET value = greatest(value::integer, 2)::text
            WHERE name = 'least_version' AND EXISTS (SELECT FROM made)";
    let values: [Value<'_>; 2] = [(&names, Type::TEXT_ARRAY), (&made, Type::TEXT_ARRAY)];
    query(&client, sql, &values).await.map(drop)
}

/// The beats of nodes whose program knows no bucket, or that have not said yet what they know.
async fn unknowing(client: Arc<Client>, me: i64) -> Result<Vec<(i64, i64)>, Error> {
    let sql = "SELECT node, beat FROM syncdiffusion.nodes
        WHERE node <> $1 AND coalesce((about->>'tables')::integer, 1) < 2";
    let rows = query(&client, sql, &[(&me, Type::INT8)]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// What a node says of itself to others of the fleet: also which tables it knows.
pub(super) fn about(about: &impl serde::Serialize) -> Result<String, StoreError> {
    let failed = |error: serde_json::Error| StoreError::Engine(error.to_string());
    let mut about = serde_json::to_value(about).map_err(failed)?;
    about["tables"] = VERSION.into();
    serde_json::to_string(&about).map_err(failed)
}

/// Notes objects that are to be removed.
pub(super) async fn outdate(client: Arc<Client>, keys: Vec<String>) -> Result<(), Error> {
    let sql = format!(
        "{QUICK} INSERT INTO syncdiffusion.unneeded_objects SELECT k.key FROM quick, unnest($1) AS k (key)
        ON CONFLICT DO NOTHING"
    );
    query(&client, &sql, &[(&keys, Type::TEXT_ARRAY)]).await.map(drop)
}

/// The bucket of these servers: the one that is asked for, which must be theirs, or theirs. It is tried out.
///
/// # Errors
/// If another one is theirs, if it cannot be used, or if servers run that know no bucket.
pub(super) async fn agree(
    link: &Link,
    me: i64,
    asked: Option<&str>,
    access: &Access,
) -> Result<Option<Place>, StoreError> {
    let known = match (link.read(known).await?, asked) {
        (None, None) => return Ok(None),
        (Some(known), _) => known,
        (None, Some(url)) => begin(link, me, url, access).await?,
    };
    tried(&known, asked, access).await.map(Some)
}

/// The bucket that the settings name, which must be the one that is asked for, and theirs. It is tried out.
///
/// # Errors
/// If another one is asked for, or this one cannot be used.
pub(super) async fn tried(known: &Known, asked: Option<&str>, access: &Access) -> Result<Place, StoreError> {
    matches(known, asked)?;
    let place = known.place(access)?;
    is_theirs(&place).await?;
    place.probe().await?;
    Ok(place)
}

/// A URL without the slash at its end.
fn plain(url: &str) -> &str {
    url.trim_end_matches('/')
}

/// Whether the bucket that is asked for is the one that the servers have.
///
/// # Errors
/// If it is another one.
fn matches(known: &Known, asked: Option<&str>) -> Result<(), StoreError> {
    let Some(asked) = asked.map(plain).filter(|asked| *asked != known.url) else { return Ok(()) };
    let url = &known.url;
    Err(StoreError::Engine(format!(
        "the servers of this database have their pictures in `{url}`, and `--pictures` says `{asked}`; name `{url}`, \
        or another database"
    )))
}

/// Whether a bucket is the one that the servers of a database use, and not one of the same name elsewhere.
///
/// # Errors
/// If it is not, or cannot be read.
pub(super) async fn is_theirs(place: &Place) -> Result<(), StoreError> {
    if place.get_soon(ROUND).await?.is_some() {
        return Ok(());
    }
    Err(StoreError::Engine(format!(
        "this is not the bucket that the servers of the database use: it has no {}; check `--s3-endpoint` and the \
        variables `AWS_*`",
        place.shown(ROUND)
    )))
}

/// Chooses the bucket for all nodes.
async fn begin(link: &Link, me: i64, url: &str, access: &Access) -> Result<Known, StoreError> {
    split(url).map_err(|why| StoreError::Engine(format!("`--pictures`: {why}")))?;
    let before = link.read(|client| unknowing(client, me)).await?;
    if !before.is_empty() {
        tokio::time::sleep(WATCH).await;
        let now = link.read(|client| unknowing(client, me)).await?;
        let is_alive = |(node, beat): &(i64, i64)| now.iter().any(|(other, later)| other == node && later > beat);
        if before.iter().any(is_alive) {
            return Err(StoreError::Engine(
                "servers of an older version use this database, which cannot read pictures in a bucket; replace all of \
                them, then start one with `--pictures`"
                    .to_owned(),
            ));
        }
    }
    let (url, endpoint) = (plain(url).to_owned(), access.endpoint().unwrap_or_default());
    let mine = Known { url, endpoint, folder: name()? };
    let (place, round) = (mine.place(access)?, name()?);
    place.probe().await?;
    place.put_as(ROUND, round.as_bytes(), "text/plain").await?;
    link.call(async |client: Arc<Client>| write(client, &mine, &round).await).await?;
    let known = link.read(known).await?.unwrap_or_else(|| mine.clone());
    if known != mine {
        // Another node was quicker.
        drop(place.remove(&[ROUND.to_owned()]).await);
    }
    Ok(known)
}
