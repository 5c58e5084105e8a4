//! The answer with all pictures at once.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::response::{IntoResponse as _, Response};
use prediction::Prediction;
use serde_json::{Value, json};

use super::errors::Fault;
use super::jobs::Outcome;
use super::options::Form;
use super::request::Shape;
use super::usage::usage;
use crate::http::common;
use crate::http::error::Error;
use crate::http::state::App;

/// Waits for the pictures and answers with them.
pub(super) async fn answer(
    app: App,
    outcome: impl Future<Output = Result<Outcome, Fault>>,
    shape: Shape,
) -> Result<Value, Response> {
    let pictures = match outcome.await {
        Ok(Outcome::Done(id)) => all(&app, &id, &shape).await,
        Ok(Outcome::Failed(prediction)) => Err(Fault::failed(&prediction)),
        Ok(Outcome::Left) => Err(Fault::closing()),
        Err(fault) => Err(fault),
    };
    pictures.map_err(Fault::into_response)
}

async fn all(app: &App, id: &str, shape: &Shape) -> Result<Value, Fault> {
    let Some(prediction) = app.service.get(id).await.map_err(Error::from)? else {
        return Err(Fault::lost("removed", "the pictures were removed before they could be sent"));
    };
    let input = &prediction.input;
    let mut data = Vec::new();
    for n in 0..input.num_outputs {
        let (key, picture) = match shape.form {
            Form::Base64 => ("b64_json", base64(app, &prediction, n).await?),
            Form::Url => ("url", url(&prediction, n)?.to_string()),
        };
        data.push(json!({ key: picture, "prediction_id": id, "seed": input.of_picture(n).seed }));
    }
    let mut answer = json!({
        "background": "opaque",
        "created": now(),
        "data": data,
        "output_format": shape.format,
        "quality": shape.quality,
        "size": shape.size(),
        "usage": usage(input, shape.size, input.num_outputs.into()),
    });
    if let Some(asker) = &shape.asker {
        answer["safety_identifier"] = asker.as_str().into();
    }
    Ok(answer)
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A picture of a prediction as bare base64.
pub(super) async fn base64(app: &App, prediction: &Prediction, n: u32) -> Result<String, Fault> {
    let picture = common::base64(app, prediction, n).await.map_err(Error::from)?;
    picture.ok_or_else(|| Fault::lost("removed", "the picture is no longer kept"))
}

/// The URL of a picture of a prediction.
fn url(prediction: &Prediction, n: u32) -> Result<Arc<str>, Fault> {
    let shown = prediction.output.as_ref().and_then(|output| output.pictures().get(n as usize));
    let url = shown.filter(|text| !text.starts_with("data:")).cloned();
    url.ok_or_else(|| Fault::lost("no_url", "the picture has no URL"))
}
