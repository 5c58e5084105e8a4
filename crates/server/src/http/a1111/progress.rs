//! How far the pictures of a caller are, with the preview of the one that is being drawn, and how they are stopped.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::{Extension, Json};
use prediction::service::{Follower, News};
use prediction::wire::Metrics;
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors::Fault;
use super::request::Route;
use super::runs::{Drawn, Runs, Watched, asker};
use crate::http::auth::Caller;
use crate::http::error::Error;
use crate::http::state::App;

/// What is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    skip_current_image: bool,
}

/// GET `/sdapi/v1/progress`.
pub(super) async fn show(
    State(app): State<App>,
    Extension(runs): Extension<Runs>,
    caller: Caller,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Value>, Fault> {
    let Query(asked) = query.map_err(|rejection| Error::Body(rejection.status(), rejection.body_text()))?;
    let Some(drawn) = newest(&app, &runs, &caller).await? else {
        return Ok(Json(answer(&Metrics::default(), "", 0, None)));
    };
    let is_active = drawn.is_elsewhere || app.service.is_active(&drawn.id);
    let active = if is_active { app.service.get(&drawn.id).await.map_err(Error::from)? } else { None };
    // One that has just ended is about to be answered.
    let ended = || Metrics { progress: Some(1.0), ..Metrics::default() };
    let active = active.filter(|prediction| !prediction.status.is_terminal());
    let metrics = active.map_or_else(ended, |prediction| prediction.metrics);
    let image = if asked.skip_current_image { None } else { preview(&app, &drawn).await };
    Ok(Json(answer(&metrics, drawn.route.job(), drawn.count, image.as_deref())))
}

/// What a caller asked for last: this server, or any other of its fleet.
async fn newest(app: &App, runs: &Runs, caller: &Caller) -> Result<Option<Arc<Drawn>>, Error> {
    if let Some(drawn) = runs.newest(caller) {
        return Ok(Some(drawn));
    }
    let routes = [Route::Txt2Img, Route::Img2Img].map(|route| (asker(caller, route), route));
    let Some((asked, prediction)) = app.service.newest_of(&routes.each_ref().map(|(asker, _)| asker.clone())).await?
    else {
        return Ok(None);
    };
    let route = routes.iter().find(|(asker, _)| *asker == asked).map(|(_, route)| *route);
    Ok(route.map(|route| runs.elsewhere(caller, &prediction.id, route, prediction.input.num_outputs)))
}

fn answer(metrics: &Metrics, job: &str, count: u32, image: Option<&str>) -> Value {
    json!({
        "progress": metrics.progress.unwrap_or(0.0),
        "eta_relative": metrics.seconds_left.unwrap_or(0.0),
        "state": {
            "skipped": false,
            "interrupted": false,
            "job": job,
            "job_count": count,
            "job_no": 0,
            "job_timestamp": "0",
            "sampling_step": metrics.step.unwrap_or(0),
            "sampling_steps": metrics.steps.unwrap_or(0),
        },
        "current_image": image,
        "textinfo": null,
    })
}

/// The newest preview as bare base64: that of the stream of the prediction, the same bytes. The first call begins to
/// watch, and has none yet.
async fn preview(app: &App, drawn: &Arc<Drawn>) -> Option<String> {
    if let Some(watched) = drawn.watched().as_ref() {
        let image = &watched.newest.as_ref()?.image;
        return image.split_once(";base64,").map(|(_, data)| data.to_owned());
    }
    let follower = app.service.follow(&drawn.id, 0).await.ok()??;
    let mut watched = drawn.watched();
    if watched.is_none() {
        *watched = Some(Watched::default());
        tokio::spawn(watch(follower.watching(), Arc::clone(drawn)));
    }
    None
}

/// Keeps the newest preview until the prediction ends.
async fn watch(mut follower: Follower, drawn: Arc<Drawn>) {
    while let Some(news) = follower.next().await {
        if let News::Preview(preview) = news {
            drawn.watched().get_or_insert_default().newest = Some(preview);
        }
    }
}

/// POST `/sdapi/v1/interrupt` and `/sdapi/v1/skip`: stops what the caller asked for last.
pub(super) async fn interrupt(
    State(app): State<App>,
    Extension(runs): Extension<Runs>,
    caller: Caller,
) -> Result<Json<Value>, Fault> {
    if let Some(drawn) = newest(&app, &runs, &caller).await? {
        app.service.cancel(&drawn.id).await.map_err(Error::from)?;
    }
    Ok(Json(json!({})))
}
