//! Links to single pictures: GET `/predictions/{id}/link` makes the key of one, and GET `/view/{id}/picture` shows the
//! picture to whoever has it, without a token.
//!
//! A key has the time of its prediction and is computed from that, the id and the secret of the server. So it is valid
//! as long as there is the picture, not for another one that has its id later, and no list of keys is kept.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prediction::webhook::signature::Secret;
use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use super::error::Error;
use super::made::Made;
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

/// The key of a prediction.
fn key_of(secret: &Secret, made: &Made) -> String {
    let proof = secret.capability(PURPOSE, &made.to_string());
    format!("{}.{proof}", made.micros)
}

/// The prediction of an id that a key was made for.
fn made_of(secret: &Secret, id: &str, key: &str) -> Option<Made> {
    let made = Made { id: id.to_owned(), micros: key.split_once('.')?.0.parse().ok()? };
    let right = key_of(secret, &made);
    bool::from(key.as_bytes().ct_eq(right.as_bytes())).then_some(made)
}

/// The link to the picture of a prediction.
async fn link(State(app): State<App>, Path(id): Path<String>, headers: HeaderMap) -> Result<Json<Value>, Error> {
    let known = app.service.bare(&id).await?.ok_or_else(|| Error::Unknown(id.clone()))?;
    let key = key_of(&app.secret, &Made::of(&known));
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
    let made = made_of(&app.secret, &id, &key.unwrap_or_default()).ok_or(Error::NoFile)?;
    // In this order: the id may be used again in between, and the picture is then of before.
    let picture = app.service.picture(&id, n.unwrap_or_default(), None).await?.ok_or(Error::NoFile)?;
    app.service.bare(&id).await?.filter(|known| made.is(known)).ok_or(Error::NoFile)?;
    let head = [(header::CONTENT_TYPE, &*picture.media), (header::CACHE_CONTROL, "private, max-age=300")];
    Ok((head, picture.bytes.to_vec()).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_one_prediction() {
        let secret = Secret::random().unwrap();
        let made = |id: &str| Made { id: id.to_owned(), micros: 1_795_500_480_140_349 };
        let key = key_of(&secret, &made("a/b"));
        assert_eq!(made_of(&secret, "a/b", &key), Some(made("a/b")));
        assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{key}");
        let later = key.replacen("1795500480140349", "1795500480140350", 1);
        let padded = format!("0{key}");
        for wrong in ["", ".", "1.", &later, &padded, &key[..key.len() - 1], key.split_once('.').unwrap().1] {
            assert_eq!(made_of(&secret, "a/b", wrong), None, "{wrong}");
        }
        assert_eq!((made_of(&secret, "b", &key), made_of(&Secret::random().unwrap(), "a/b", &key)), (None, None));
    }
}
