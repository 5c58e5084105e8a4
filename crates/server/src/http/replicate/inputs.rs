//! Inputs that name a file which the client has uploaded: its bytes are taken from here, and nobody is called.

use std::sync::Arc;

use prediction::input::Given;
use prediction::input::table::{Kind, TABLE};
use serde_json::Value;

use crate::http::auth::Caller;
use crate::http::error::Error;
use crate::http::state::App;

/// What the URL of a file has before its id.
const PATH: &str = "/v1/files/";

/// Takes the pictures that are files of the caller. Other URLs stay, and are fetched as those of everybody.
pub(super) async fn resolve(app: &App, Caller(owner): &Caller, given: &mut Given) -> Result<(), Error> {
    for field in TABLE.iter().filter(|field| field.kind == Kind::Picture) {
        let Some(url) = given.value.get(field.name).and_then(Value::as_str) else { continue };
        let Some(id) = id_of(url).map(str::to_owned) else { continue };
        let (files, owner) = (Arc::clone(&app.files), owner.clone());
        let read = tokio::task::spawn_blocking(move || files.read(&owner, &id)).await;
        match read {
            Ok(Ok(Some(bytes))) => given.sent.insert(field.name, bytes.to_vec()),
            Ok(Ok(None)) | Err(_) => {}
            Ok(Err(error)) => return Err(prediction::client_files::NotKept::Io(error).into()),
        }
    }
    Ok(())
}

/// The id in the URL of a file, under whatever address the client reaches the server.
fn id_of(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    let (_, id) = rest.rsplit_once(PATH)?;
    (!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_files_are_known_by_their_path() {
        for url in ["http://localhost:5000/v1/files/00ff", "https://panorama.example/api/v1/files/00ff"] {
            assert_eq!(id_of(url), Some("00ff"), "{url}");
        }
        for url in [
            "data:,/v1/files/00ff",
            "http://a/v1/files/",
            "http://a/v1/files/a/b",
            "http://a/files/00ff",
            "/v1/files/00ff",
        ] {
            assert_eq!(id_of(url), None, "{url}");
        }
    }
}
