//! The store that the flags of `serve` name, and what lies beside its predictions: secrets, and files of clients.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use prediction::bucket::Access;
use prediction::capability::Signer;
use prediction::client_files::ClientFiles;
use prediction::store::{Memory, Postgres, Sqlite, Store};
use prediction::webhook::signature::Secret;

/// Where predictions are.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// A database, whose servers may all have to compute in one dtype, and may have their pictures in a bucket.
    Database {
        url: &'a str,
        dtype: Option<&'a str>,
        pictures: Option<&'a str>,
    },
    Folder(&'a Path),
    Memory,
}

/// A store that was opened.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) files: ClientFiles,
    /// What makes names in URLs, so that they outlive the process and are those of all servers of a database.
    pub(crate) signer: Signer,
    pub(crate) shared: Option<Shared>,
    pub(crate) database: Option<Arc<Postgres>>,
}

/// What all servers of a database have in common.
pub(crate) struct Shared {
    /// What webhooks are signed with, unless a flag says so.
    pub(crate) webhook_secret: String,
    /// The dtype in which all workers compute, if one is demanded.
    pub(crate) dtype: Option<String>,
}

/// Opens the store; `access` is how a bucket of its pictures is reached.
///
/// # Errors
/// If it cannot be used.
pub(crate) fn open(place: Place<'_>, access: Access) -> anyhow::Result<Opened> {
    match place {
        Place::Database { url, dtype, pictures } => database(url, dtype, pictures, access),
        Place::Folder(dir) => local(Some(dir)),
        Place::Memory => local(None),
    }
}

fn local(data_dir: Option<&Path>) -> anyhow::Result<Opened> {
    let store: Arc<dyn Store> = match data_dir {
        None => Arc::new(Memory::default()),
        Some(dir) => Arc::new(Sqlite::open(dir)?),
    };
    let signer = match data_dir {
        None => Signer::random()?,
        Some(dir) => {
            Signer::kept_in(dir).with_context(|| format!("cannot keep the secret of URLs in `{}`", dir.display()))?
        }
    };
    let files = ClientFiles::open(data_dir).context("cannot read the files of clients in the data folder")?;
    Ok(Opened { store, files, signer, shared: None, database: None })
}

fn database(url: &str, dtype: Option<&str>, pictures: Option<&str>, access: Access) -> anyhow::Result<Opened> {
    let store = Arc::new(Postgres::open(url)?);
    let signer = Signer::parse(&store.setting("url_secret", Signer::make()?)?)
        .context("the secret of URLs in the database is damaged")?;
    let webhook_secret = store.setting("webhook_secret", Secret::random()?.reveal().to_owned())?;
    let demanded = match dtype {
        Some(dtype) => Some(store.setting("dtype", dtype.to_owned())?),
        None => store.known("dtype")?,
    };
    if let (Some(asked), Some(demanded)) = (dtype, &demanded)
        && asked != demanded
    {
        store.leave()?;
        anyhow::bail!(
            "the servers of this database compute in {demanded}, and `--fleet-dtype` says {asked}; name {demanded}, or \
             another database"
        );
    }
    match store.keep_pictures(pictures, access) {
        Ok(None) => {}
        Ok(Some(bucket)) => tracing::info!(bucket, "pictures are kept in a bucket"),
        Err(error) => {
            store.leave()?;
            return Err(error.into());
        }
    }
    let files = ClientFiles::common(Arc::clone(&store) as Arc<_>);
    let shared = Some(Shared { webhook_secret, dtype: demanded });
    Ok(Opened { store: Arc::clone(&store) as Arc<_>, files, signer, shared, database: Some(store) })
}
