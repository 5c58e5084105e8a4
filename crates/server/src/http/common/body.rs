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
    held: Option<OwnedSemaphorePermit>,
}

impl<S: Send + Sync> FromRequest<S> for Raw
where
    Bodies: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let (bytes, held) = read(request, &Bodies::from_ref(state)).await?;
        Ok(Self { bytes, held })
    }
}

impl Raw {
    /// Parses the bytes, a large body off the async threads. The room that the body took is returned beside what was
    /// read, for those who keep some of it.
    pub(crate) async fn parse<T, E>(
        self,
        parse: impl FnOnce(Vec<u8>) -> Result<T, E> + Send + 'static,
    ) -> Result<(T, Option<OwnedSemaphorePermit>), E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let Self { bytes, held } = self;
        if bytes.len() <= SMALL {
            return Ok((parse(bytes)?, held));
        }
        let parsed = tokio::task::spawn_blocking(move || Ok((parse(bytes)?, held))).await;
        parsed.unwrap_or_else(|_| Err(Error::BodiesFull.into()))
    }
}
