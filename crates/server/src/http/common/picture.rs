//! The pictures of a prediction inside of JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prediction::Prediction;
use prediction::store::StoreError;

use crate::http::state::App;

/// A picture of a prediction that has ended with it, by its number from 0, as bare base64; none if it is no longer
/// kept.
pub(crate) async fn base64(app: &App, prediction: &Prediction, n: u32) -> Result<Option<String>, StoreError> {
    let shown = prediction.output.as_ref().and_then(|output| output.pictures().get(n as usize));
    if let Some((_, data)) = shown.and_then(|text| text.strip_prefix("data:")?.split_once(";base64,")) {
        return Ok(Some(data.to_owned()));
    }
    let picture = app.service.picture(&prediction.id, n, None).await?;
    Ok(picture.map(|picture| STANDARD.encode(&picture.bytes)))
}
