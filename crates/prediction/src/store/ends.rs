//! The ends that a store makes by itself: of what was canceled while it waited, and of what was interrupted too often.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::StoreError;
use super::record::Record;
use crate::input;
use crate::output::Wanted;
use crate::time::Time;
use crate::wire::{Metrics, Prediction, Status};

/// A prediction that was asked to stop.
pub(super) fn canceled(record: &Record, now: Time) -> Record {
    end(record, Status::Canceled, None, now)
}

/// A prediction that has lost its worker, or its server, as often as it may.
pub(super) fn interrupted(record: &Record, now: Time) -> Record {
    let attempts = record.attempts;
    let why = format!("it was interrupted {attempts} times by the end of the server or its worker");
    end(record, Status::Failed, Some(why), now)
}

/// The canceled form of an end that came too late for a wish to stop.
pub(super) fn canceled_instead(mut record: Record) -> Record {
    let prediction = &mut record.prediction;
    prediction.status = Status::Canceled;
    prediction.error = None;
    prediction.output = None;
    prediction.metrics.work = None;
    record.file = None;
    record
}

/// The failed form of an end whose pictures could not be stored.
pub(super) fn unstored(record: Record, why: String) -> Record {
    let mut record = canceled_instead(record);
    record.prediction.status = Status::Failed;
    record.prediction.error = Some(why);
    record
}

/// The failed form of what has a record that cannot be read, with what can be read of it.
///
/// # Errors
/// If there is none.
pub(super) fn unreadable(text: &str, id: String, why: &StoreError, now: Time) -> Result<Record, StoreError> {
    let stored: Value = serde_json::from_str(text).unwrap_or_default();
    let prediction = &stored["prediction"];
    let input = match part(&prediction["input"]) {
        Some(input) => input,
        None => input::parse(&json!({"prompt": ""}), None).map_err(|_| why.clone())?.input,
    };
    let prediction = Prediction {
        completed_at: Some(now),
        created_at: part(&prediction["created_at"]).unwrap_or(now),
        error: Some(why.to_string()),
        input,
        logs: part(&prediction["logs"]).unwrap_or_default(),
        metrics: Metrics::default(),
        model: part(&prediction["model"]),
        output: None,
        started_at: None,
        status: Status::Failed,
        urls: part(&prediction["urls"]).unwrap_or_default(),
        version: part(&prediction["version"]),
        id,
    };
    Ok(Record {
        prediction,
        seq: 0,
        attempts: 0,
        webhook: part(&stored["webhook"]),
        output_file_prefix: None,
        wanted: Wanted::default(),
        file: None,
        deadline: None,
        key: part(&stored["key"]),
        asker: part(&stored["asker"]),
    })
}

fn part<T: DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

/// Logs and counts an end that the store made and nobody else reports.
pub(crate) fn announce(record: &Record) {
    let Prediction { id, status, error, .. } = &record.prediction;
    let status = status.name();
    tracing::info!(prediction_id = ?id, status, error, "prediction ended");
    metrics::counter!("syncdiffusion_predictions_total", "status" => status).increment(1);
}

fn end(record: &Record, status: Status, error: Option<String>, now: Time) -> Record {
    let mut record = record.clone();
    let prediction = &mut record.prediction;
    prediction.status = status;
    prediction.error = error;
    prediction.output = None;
    prediction.completed_at = Some(now);
    let metrics = &mut prediction.metrics;
    metrics.predict_time = Some(prediction.started_at.map_or(0.0, |started| now.since(started)));
    metrics.total_time = Some(now.since(prediction.created_at));
    metrics.queue_position = None;
    metrics.seconds_left = None;
    record
}
