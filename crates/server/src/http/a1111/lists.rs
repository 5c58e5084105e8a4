//! What clients fill their menus from: one model, the samplers, and nothing of what there is not.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::http::state::App;

/// Lists in which there is nothing.
pub(crate) const EMPTY: [&str; 8] = [
    "face-restorers",
    "hypernetworks",
    "latent-upscale-modes",
    "loras",
    "prompt-styles",
    "realesrgan-models",
    "sd-modules",
    "sd-vae",
];

/// Samplers by the names of this API, and the scheduler that each of them is.
pub(super) const SAMPLERS: [(&str, &str); 3] = [("DDIM", "ddim"), ("UniPC", "unipc"), ("DPM++ 2M", "dpmpp_2m")];

/// Name of the model as its lists have it: with the beginning of its hash.
fn title(name: &str, version: &str) -> String {
    format!("{name} [{}]", version.get(..10).unwrap_or(version))
}

/// Name and hash of the model; both are empty until a worker has loaded it.
fn model(app: &App) -> (String, String) {
    app.service.model().map_or_else(Default::default, |model| (model.name, model.version))
}

pub(super) async fn models(State(app): State<App>) -> Json<Value> {
    let (name, version) = model(&app);
    let hash = version.get(..10).unwrap_or(&version);
    Json(json!([{
        "title": title(&name, &version),
        "model_name": name,
        "hash": hash,
        "sha256": version,
        "filename": name,
        "config": null,
    }]))
}

pub(super) async fn options(State(app): State<App>) -> Json<Value> {
    let (name, version) = model(&app);
    Json(
        json!({ "samples_format": "png", "sd_checkpoint_hash": version, "sd_model_checkpoint": title(&name, &version) }),
    )
}

/// Takes anything: there is one model, and everything else is said with each request.
pub(super) async fn set_options() -> Json<Value> {
    Json(json!({}))
}

pub(super) async fn samplers() -> Json<Value> {
    let samplers = SAMPLERS.map(|(name, alias)| json!({ "name": name, "aliases": [alias], "options": {} }));
    Json(samplers.to_vec().into())
}

pub(super) async fn schedulers() -> Json<Value> {
    Json(
        json!([{ "name": "automatic", "label": "Automatic", "aliases": null, "default_rho": -1.0, "need_inner_model": false }]),
    )
}

pub(super) async fn upscalers() -> Json<Value> {
    Json(json!([{ "name": "None", "model_name": null, "model_path": null, "model_url": null, "scale": 4.0 }]))
}

pub(super) async fn embeddings() -> Json<Value> {
    Json(json!({ "loaded": {}, "skipped": {} }))
}

pub(super) async fn nothing() -> Json<Value> {
    Json(json!([]))
}
