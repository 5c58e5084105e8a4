//! Links to single pictures: GET `/predictions/{id}/link` makes the key of one, and GET `/view/{id}/picture` shows the
//! picture to whoever has it, without a token.
//!
//! A key is computed from the id and the secret of the server, so it is valid as long as there is the picture, and no
//! list of keys is kept.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use super::error::Error;
use super::path::Path;
use super::state::App;

/// What keys are made for; a webhook is never signed under this name.
const PURPOSE: &str = "links to pictures";

pub(super) fn router() -> Router<App> {
    Router::new().route("/predictions/{id}/link", get(link)).route("/view/{id}/picture", get(picture))
}

/// What a link says.
#[derive(Debug, Default, Deserialize)]
struct Shown {
    /// The key of the prediction.
    key: Option<String>,
    /// The number of the picture.
    n: Option<u32>,
}

/// The link to the picture of a prediction.
async fn link(State(app): State<App>, Path(id): Path<String>, headers: HeaderMap) -> Result<Json<Value>, Error> {
    let known = app.service.get(&id).await?.ok_or_else(|| Error::Unknown(id.clone()))?;
    let key = app.secret.capability(PURPOSE, &id);
    let place = known.urls.get.rsplit_once('/').map_or("", |(_, id)| id);
    Ok(Json(json!({ "key": key, "url": format!("{}/view/{place}?key={key}", app.base(&headers)) })))
}

/// The picture, for whoever has its key. A wrong key is answered as a picture that does not exist.
async fn picture(
    State(app): State<App>,
    Path(id): Path<String>,
    query: Result<Query<Shown>, QueryRejection>,
) -> Result<Response, Error> {
    let Shown { key, n } = query.map(|Query(shown)| shown).unwrap_or_default();
    let right = app.secret.capability(PURPOSE, &id);
    if !bool::from(key.unwrap_or_default().as_bytes().ct_eq(right.as_bytes())) {
        return Err(Error::NoFile);
    }
    let picture = app.service.picture(&id, n.unwrap_or_default(), None).await?.ok_or(Error::NoFile)?;
    let head = [(header::CONTENT_TYPE, &*picture.media), (header::CACHE_CONTROL, "private, max-age=300")];
    Ok((head, picture.bytes.to_vec()).into_response())
}
