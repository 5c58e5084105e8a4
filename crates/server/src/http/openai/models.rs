//! The model under the names that clients know.

use axum::Json;
use axum::extract::State;
use prediction::shown::shown_up_to;
use serde_json::{Value, json};

use super::errors::Fault;
use crate::config::ModelName;
use crate::http::path::Path;
use crate::http::state::App;

/// A name that means the model whatever its own is.
const OWN: &str = "syncdiffusion";
/// Names that are listed beside its own, for clients that list only OpenAI's (n8n).
const LISTED: [&str; 2] = ["gpt-image-1", "dall-e-3"];
/// When Stable Diffusion 2 was released, in Unix seconds.
const RELEASED: u64 = 1_669_248_000;

/// Whether a name of a model means this one. Front ends send names of OpenAI's if nobody chose another.
pub(super) fn is_ours(name: &str, ours: &ModelName) -> bool {
    let (owner, last) = name.split_once('/').unwrap_or((ours.owner(), name));
    name.is_empty()
        || ours.is(owner, last)
        || LISTED.contains(&name)
        || matches!(name, OWN | "dall-e-2" | "chatgpt-image-latest")
        || name.starts_with("gpt-image-")
}

/// Whether clients that name this model expect URLs where they do not say what they want.
pub(super) fn expects_url(name: &str) -> bool {
    name.starts_with("dall-e-")
}

/// The names that are listed.
fn listed(ours: &ModelName) -> impl Iterator<Item = &str> {
    std::iter::once(ours.name()).chain(LISTED)
}

/// The cards of the listed names, for `GET /v1/models`.
pub(crate) fn cards(ours: &ModelName) -> Vec<Value> {
    listed(ours).map(|name| card(name, ours)).collect()
}

fn card(name: &str, ours: &ModelName) -> Value {
    json!({ "id": name, "object": "model", "created": RELEASED, "owned_by": ours.owner() })
}

/// GET `/v1/models/{model}`.
pub(super) async fn show(State(app): State<App>, Path(name): Path<String>) -> Result<Json<Value>, Fault> {
    let ours = &app.view.model;
    if is_ours(&name, ours) { Ok(Json(card(&name, ours))) } else { Err(unknown(&name, ours)) }
}

/// GET `/v1/models/capabilities`, which `AnythingLLM` fills its list from.
pub(super) async fn capabilities(State(app): State<App>) -> Json<Value> {
    let capable = |name| json!({ "id": name, "object": "model", "capabilities": ["image"] });
    let data: Vec<Value> = listed(&app.view.model).map(capable).collect();
    Json(json!({ "object": "list", "data": data }))
}

/// The refusal of a name.
pub(super) fn unknown(name: &str, ours: &ModelName) -> Fault {
    let name = shown_up_to(name, 100);
    Fault::no_model(format!("there is no model `{name}`; use `{}`, or leave `model` out", ours.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_front_ends_are_ours() {
        let ours: ModelName = "Owner/Name".parse().unwrap();
        for name in [
            "",
            "syncdiffusion",
            "name",
            "owner/name",
            "dall-e-2",
            "dall-e-3",
            "gpt-image-1",
            "gpt-image-2-mini",
            "chatgpt-image-latest",
        ] {
            assert!(is_ours(name, &ours), "{name}");
        }
        for name in ["gpt-4o", "dall-e-4", "dall-e", "sdxl", "gpt-image", "other/name", "owner/"] {
            assert!(!is_ours(name, &ours), "{name}");
        }
    }
}
