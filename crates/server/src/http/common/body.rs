//! The body of a request as bytes, within the limits of all bodies.

use axum::extract::{FromRef, FromRequest, Request};
use tokio::sync::OwnedSemaphorePermit;

use crate::http::body::read;
use crate::http::error::Error;
use crate::http::room::{Bodies, SMALL};

/// The bytes of a body, and the room that they take.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) bytes: Vec<u8>,
    _held: Option<OwnedSemaphorePermit>,
}

impl<S: Send + Sync> FromRequest<S> for Raw
where
    Bodies: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let (bytes, held) = read(request, &Bodies::from_ref(state)).await?;
        Ok(Self { bytes, _held: held })
    }
}

impl Raw {
    /// Parses the bytes, a large body off the async threads.
    pub(crate) async fn parse<T, E>(self, parse: impl FnOnce(&[u8]) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        if self.bytes.len() <= SMALL {
            return parse(&self.bytes);
        }
        let parsed = tokio::task::spawn_blocking(move || parse(&self.bytes)).await;
        parsed.unwrap_or_else(|_| Err(Error::BodiesFull.into()))
    }
}
