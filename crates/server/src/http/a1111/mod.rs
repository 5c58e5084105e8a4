//! The API of AUTOMATIC1111's web UI, as much of it as its clients call: `/sdapi/v1`.
//!
//! - `pictures`: txt2img and img2img; `request`: what is asked for, `init`: of a given picture; `info`: what is said of
//!   pictures;
//! - `runs`: whose pictures are being drawn; `progress`: how far they are, and how they are stopped;
//! - `lists`: what clients fill their menus from; `errors`: errors in the words of this API.
//!
//! What always holds: a picture has exactly the size that was asked for.

mod errors;
mod info;
mod init;
pub(crate) mod lists;
mod pictures;
mod progress;
mod request;
mod runs;

use axum::routing::{get, post};
use axum::{Extension, Router};

pub(super) use errors::dress;

use self::runs::Runs;
use super::state::App;

pub(super) fn router() -> Router<App> {
    let router = Router::new()
        .route("/sdapi/v1/txt2img", post(pictures::txt2img))
        .route("/sdapi/v1/img2img", post(pictures::img2img))
        .route("/sdapi/v1/progress", get(progress::show))
        .route("/sdapi/v1/interrupt", post(progress::interrupt))
        .route("/sdapi/v1/skip", post(progress::interrupt))
        .route("/sdapi/v1/options", get(lists::options).post(lists::set_options))
        .route("/sdapi/v1/sd-models", get(lists::models))
        .route("/sdapi/v1/samplers", get(lists::samplers))
        .route("/sdapi/v1/schedulers", get(lists::schedulers))
        .route("/sdapi/v1/upscalers", get(lists::upscalers))
        .route("/sdapi/v1/embeddings", get(lists::embeddings))
        .layer(Extension(Runs::default()));
    let empty = |router: Router<App>, name: &&str| router.route(&format!("/sdapi/v1/{name}"), get(lists::nothing));
    lists::EMPTY.iter().fold(router, empty)
}
