//! Files of clients, which all nodes keep together.

use std::io;
use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::Postgres;
use super::lane::{Commit, Taken};
use super::rows::{NOW, Value, number, query};
use crate::client_files::{ClientFile, Common, MAX_BYTES, MAX_FILES};
use crate::store::error::StoreError;

/// What is known of a file, from how it is stored.
fn parse(about: &str) -> Result<ClientFile, StoreError> {
    serde_json::from_str(about).map_err(|error| StoreError::Corrupt(format!("a file of a client: {error}")))
}

/// Whether there may be a file of that id: a text of PostgreSQL has no zero character.
fn may_be(id: &str) -> bool {
    !id.contains('\0')
}

impl Common for Postgres {
    fn add(&self, file: &ClientFile, bytes: &[u8]) -> io::Result<bool> {
        let (shared, file, bytes) = (Arc::clone(&self.shared), file.clone(), bytes.to_vec());
        let about = serde_json::to_string(&file)?;
        let added = self.wait(async move {
            let add = async |client: Arc<Client>| {
                // The sums may be of a moment ago: two at once may exceed them by one.
                let sql = "INSERT INTO syncdiffusion.client_files (id, owner, expires_at, about, size, bytes)
                    SELECT $1, $2, $3, $4, $5, $6 WHERE (
                        SELECT count(*) < $7 AND coalesce(sum(size), 0) + $5 <= $8 FROM syncdiffusion.client_files
                    ) RETURNING id";
                let (expires, size) = (file.expires_at.micros(), number(file.size));
                let (most_files, most_bytes) = (number(MAX_FILES as u64), number(MAX_BYTES));
                let values: [Value<'_>; 8] = [
                    (&file.id, Type::TEXT),
                    (&file.owner, Type::TEXT),
                    (&expires, Type::INT8),
                    (&about, Type::TEXT),
                    (&size, Type::INT8),
                    (&bytes, Type::BYTEA),
                    (&most_files, Type::INT8),
                    (&most_bytes, Type::INT8),
                ];
                Ok(!query(&client, sql, &values).await?.is_empty())
            };
            Ok(shared.uploads.once_with(bytes.len(), add).await?)
        });
        added.map_err(io::Error::other)
    }

    fn get(&self, id: &str) -> io::Result<Option<ClientFile>> {
        if !may_be(id) {
            return Ok(None);
        }
        let (shared, id) = (Arc::clone(&self.shared), id.to_owned());
        let found = self.wait(async move {
            let sql = "SELECT about FROM syncdiffusion.client_files WHERE id = $1";
            let rows = shared.looks.read(async |client| query(&client, sql, &[(&id, Type::TEXT)]).await).await?;
            rows.first().map(|row| parse(row.get(0))).transpose()
        });
        found.map_err(io::Error::other)
    }

    fn read(&self, id: &str) -> io::Result<Option<Arc<[u8]>>> {
        if !may_be(id) {
            return Ok(None);
        }
        let (shared, id) = (Arc::clone(&self.shared), id.to_owned());
        let found = self.wait(async move {
            let sql = "SELECT bytes FROM syncdiffusion.client_files WHERE id = $1";
            let rows = shared.bytes.read(async |client| query(&client, sql, &[(&id, Type::TEXT)]).await).await?;
            Ok(rows.first().map(|row| row.get::<_, &[u8]>(0).into()))
        });
        found.map_err(io::Error::other)
    }

    fn list(&self, owner: &str) -> io::Result<Vec<ClientFile>> {
        let (shared, owner) = (Arc::clone(&self.shared), owner.to_owned());
        let found = self.wait(async move {
            let sql = "SELECT about FROM syncdiffusion.client_files WHERE owner = $1";
            let rows = shared.looks.read(async |client| query(&client, sql, &[(&owner, Type::TEXT)]).await).await?;
            rows.iter().map(|row| parse(row.get(0))).collect()
        });
        found.map_err(io::Error::other)
    }

    fn remove(&self, id: &str) -> io::Result<bool> {
        if !may_be(id) {
            return Ok(false);
        }
        let id = Arc::new(id.to_owned());
        let remove = move |client: Arc<Client>| {
            let id = Arc::clone(&id);
            async move {
                let sql = "DELETE FROM syncdiffusion.client_files WHERE id = $1 RETURNING id";
                Ok(!query(&client, sql, &[(&*id, Type::TEXT)]).await?.is_empty())
            }
        };
        let removed = self.lane.write((Commit::Durable, Taken::Always), 0, remove, |removed| Ok(removed.outcome?));
        self.wait(removed).map_err(io::Error::other)
    }

    fn sweep(&self) -> io::Result<()> {
        let sweep = async |client: Arc<Client>| {
            let sql = format!("DELETE FROM syncdiffusion.client_files WHERE expires_at <= {NOW}");
            query(&client, &sql, &[]).await.map(drop)
        };
        let swept = self.lane.write((Commit::Durable, Taken::Always), 0, sweep, |swept| Ok(swept.outcome?));
        self.wait(swept).map_err(io::Error::other)
    }
}
