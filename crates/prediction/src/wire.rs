//! The representation of a prediction on the wire: one struct, one serialisation.
//!
//! Responses, webhooks, streams and lists contain a whole [`Prediction`], with `null` for what is not known yet. Keys
//! are in alphabetical order, as in Cog.

use std::sync::Arc;

use protocol::{Figures, Input, Work};
use serde::{Deserialize, Serialize, Serializer, ser};

use crate::time::Time;

/// A prediction at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// When it ended.
    pub completed_at: Option<Time>,
    /// When it was accepted.
    pub created_at: Time,
    /// Why it failed.
    pub error: Option<String>,
    /// Its id: any text.
    pub id: String,
    /// Its input, with defaults filled in.
    #[serde(serialize_with = "sorted")]
    pub input: Input,
    /// Lines of the log, each with its line break.
    pub logs: String,
    /// Its metrics.
    #[serde(serialize_with = "sorted")]
    pub metrics: Metrics,
    /// Name of the model.
    pub model: Option<String>,
    /// The picture.
    pub output: Option<Output>,
    /// When a worker began.
    pub started_at: Option<Time>,
    /// Its status.
    pub status: Status,
    /// Its URLs.
    pub urls: Urls,
    /// Hash of the model.
    pub version: Option<String>,
}

/// The status of a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Accepted, waiting for a worker.
    Starting,
    /// A worker computes it.
    Processing,
    /// It has a picture.
    Succeeded,
    /// It has an error.
    Failed,
    /// It was cancelled.
    Canceled,
}

impl Status {
    /// All of them, in the order of Cog's schema.
    pub const ALL: [Self; 5] = [Self::Starting, Self::Processing, Self::Succeeded, Self::Canceled, Self::Failed];

    /// Whether the prediction has ended.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }

    /// The word on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Processing => "processing",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// The status for a word on the wire.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// The metrics of a prediction; unknown ones are omitted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// Seconds from the start of work to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predict_time: Option<f64>,
    /// Share of the work that is done, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// The number of predictions before this one in the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<u64>,
    /// Seconds from acceptance to the start of work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_time: Option<f64>,
    /// Estimated seconds until the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<f64>,
    /// Denoising steps done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// Denoising steps in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Seconds from acceptance to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_time: Option<f64>,
    /// The work that was done.
    #[serde(flatten)]
    pub work: Option<Work>,
    /// What each of its pictures comes to, if its input asks for that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<Figures>,
}

/// The output of a prediction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Output {
    /// The only picture: a data URI or a URL.
    Whole(#[serde(serialize_with = "text", deserialize_with = "shared")] Arc<str>),
    /// Several pictures, or those so far of a prediction that still runs, as Cog's `output` webhook has them.
    List(#[serde(serialize_with = "texts", deserialize_with = "all_shared")] Vec<Arc<str>>),
}

impl Output {
    /// The output of all pictures of a prediction.
    pub fn of(mut pictures: Vec<Arc<str>>) -> Self {
        match pictures.len() {
            1 => Self::Whole(pictures.remove(0)),
            _ => Self::List(pictures),
        }
    }

    /// Its pictures.
    pub fn pictures(&self) -> &[Arc<str>] {
        match self {
            Self::Whole(picture) => std::slice::from_ref(picture),
            Self::List(pictures) => pictures,
        }
    }
}

impl From<&str> for Output {
    fn from(picture: &str) -> Self {
        Self::Whole(picture.into())
    }
}

/// A text as a part of a URL: every byte that has a meaning there is escaped.
pub fn escape(text: &str) -> String {
    let escape = |byte: u8| match byte {
        _ if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// The URLs of a prediction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Urls {
    /// POST cancels it.
    pub cancel: String,
    /// GET returns it, DELETE deletes it.
    pub get: String,
    /// GET streams its events.
    pub stream: String,
}

impl Urls {
    /// The URLs of a prediction on a server, such as `http://localhost:5000`.
    pub fn new(base: &str, id: &str) -> Self {
        let get = format!("{}/predictions/{}", base.trim_end_matches('/'), escape(id));
        Self { cancel: format!("{get}/cancel"), stream: format!("{get}/stream"), get }
    }

    /// The URL of a file that the same server serves.
    pub fn file(&self, name: &str) -> String {
        // An id never adds a slash to it.
        let base = self.get.rsplit_once("/predictions/").map_or("", |(base, _)| base);
        format!("{base}/files/{name}")
    }

    /// The URL of a picture by its number from 0, whatever the output is.
    pub fn picture(&self, n: u32) -> String {
        match n {
            0 => format!("{}/output", self.get),
            _ => format!("{}/output?n={n}", self.get),
        }
    }
}

impl Prediction {
    /// The prediction as it was when work began, for the webhook `start`.
    #[must_use]
    pub fn at_start(&self) -> Self {
        Self {
            completed_at: None,
            error: None,
            logs: String::new(),
            metrics: Metrics { queue_time: self.metrics.queue_time, ..Metrics::default() },
            output: None,
            status: Status::Processing,
            ..self.clone()
        }
    }

    /// The prediction with its picture just before the end, for the webhook `output`.
    #[must_use]
    pub fn at_output(&self) -> Self {
        let output = self.output.as_ref().map(|output| Output::List(output.pictures().to_vec()));
        let metrics = Metrics { predict_time: None, total_time: None, ..self.metrics.clone() };
        Self { completed_at: None, error: None, metrics, output, status: Status::Processing, ..self.clone() }
    }
}

/// Serialises with keys in alphabetical order.
fn sorted<T: Serialize, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    serde_json::to_value(value).map_err(ser::Error::custom)?.serialize(to)
}

fn text<S: Serializer>(value: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(value)
}

fn texts<S: Serializer>(values: &[Arc<str>], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(|value| &**value))
}

fn all_shared<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Arc<str>>, D::Error> {
    Ok(Vec::<String>::deserialize(from)?.into_iter().map(Into::into).collect())
}

fn shared<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
    String::deserialize(from).map(Into::into)
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A prediction as it is accepted.
    pub(crate) fn accepted(id: &str, input: &Value) -> Prediction {
        Prediction {
            completed_at: None,
            created_at: Time::now(),
            error: None,
            id: id.to_owned(),
            input: crate::input::parse(input, None).unwrap().input,
            logs: String::new(),
            metrics: Metrics::default(),
            model: None,
            output: None,
            started_at: None,
            status: Status::Starting,
            urls: Urls::new("http://localhost:5000/", id),
            version: None,
        }
    }

    fn sample() -> Prediction {
        accepted("a/b c", &json!({"prompt": "a"}))
    }

    #[test]
    fn keys_are_all_there_and_sorted() {
        let text = serde_json::to_string(&sample()).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), text, "sorted");
        assert_eq!(value.as_object().unwrap().len(), 13);
        assert_eq!(value["metrics"], json!({}));
        assert_eq!(value["urls"]["cancel"], "http://localhost:5000/predictions/a%2Fb%20c/cancel");
        assert_eq!(sample().urls.file("x.png"), "http://localhost:5000/files/x.png");
    }

    #[test]
    fn what_is_written_is_read() {
        let mut prediction = sample();
        prediction.metrics.work = Some(Work { unet_forwards: 3, ..Work::default() });
        prediction.output = Some(Output::Whole("data:,".into()));
        let text = serde_json::to_string(&prediction).unwrap();
        assert!(text.contains("\"unet_forwards\":3") && text.contains("\"output\":\"data:,\""));
        let read: Prediction = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        prediction.output = Some(Output::of(vec!["http://a".into(), "http://b".into()]));
        let text = serde_json::to_string(&prediction).unwrap();
        assert!(text.contains(r#""output":["http://a","http://b"]"#), "{text}");
        assert_eq!(serde_json::from_str::<Prediction>(&text).unwrap().output, prediction.output);
    }

    #[test]
    fn views_of_the_past() {
        let mut prediction = sample();
        prediction.status = Status::Succeeded;
        prediction.output = Some(Output::Whole("data:,".into()));
        prediction.metrics.predict_time = Some(1.0);
        let then = serde_json::to_value(prediction.at_output()).unwrap();
        assert_eq!((&then["output"], &then["status"]), (&json!(["data:,"]), &json!("processing")));
        assert_eq!(then["metrics"], json!({}));
        assert_eq!(prediction.at_start().output, None);
    }
}
