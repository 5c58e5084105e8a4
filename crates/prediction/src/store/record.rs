//! What is stored of a prediction: its record and its pictures, and which of them are listed or removed.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ring::digest;
use serde::{Deserialize, Serialize};

use crate::output::{self, Wanted};
use crate::time::Time;
use crate::webhook::subscription::{EventKind, Webhook};
use crate::wire::{Output, Prediction, Status};

/// A prediction as it is stored: what the wire shows, without the picture, and what the service needs besides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The prediction; its output is left out where the picture is stored apart.
    pub prediction: Prediction,
    /// Its number in the order of acceptance. The store assigns it and never assigns one twice while records last.
    pub seq: u64,
    /// How many times a node has claimed it, less the claims that were given back uncounted.
    pub attempts: u32,
    /// Who is notified.
    pub webhook: Option<Webhook>,
    /// Where the picture is to be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_file_prefix: Option<String>,
    /// What its pictures are to be besides.
    #[serde(default, skip_serializing_if = "Wanted::is_nothing")]
    pub wanted: Wanted,
    /// Name under which the picture is served, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// When it is canceled if it has not ended.
    pub deadline: Option<Time>,
    /// The `Idempotency-Key` of its request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// Who asked for it, where an interface shows callers the newest of what they asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asker: Option<String>,
}

/// An `Idempotency-Key`, by which a repeated request finds the prediction of the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The key, with what distinguishes its client from others.
    pub name: String,
    /// Digest of the request, which must be the same each time.
    pub digest: String,
}

impl Key {
    /// The key of a client's request with a body.
    pub fn new(client: &str, key: &str, body: &[u8]) -> Self {
        // No name of a client contains a line break.
        Self { name: format!("{client}\n{key}"), digest: hex::encode(digest::digest(&digest::SHA256, body)) }
    }
}

impl Record {
    /// Whether another record has the same `Idempotency-Key`.
    pub fn shares_key(&self, other: &Self) -> bool {
        self.key.as_ref().is_some_and(|key| other.key.as_ref().is_some_and(|other| key.name == other.name))
    }

    /// Whether it is shown with pictures that are stored beside it, because its output says nothing of them.
    pub(crate) fn is_bare(&self) -> bool {
        self.prediction.status == Status::Succeeded && self.prediction.output.is_none()
    }

    /// Whether its end is to be delivered to a webhook.
    pub fn owes(&self) -> bool {
        self.webhook.as_ref().is_some_and(|webhook| webhook.wants(EventKind::Completed))
    }
}

/// A record and its picture.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// The first picture, encoded. An engine may leave it out where the output says where it is, or the prediction did
    /// not succeed; so those after it.
    pub picture: Option<Arc<[u8]>>,
    /// Those after it.
    pub more: Vec<Arc<[u8]>>,
    /// Whether its webhook has yet to be delivered.
    pub owed: bool,
}

impl Stored {
    /// The prediction with the pictures that were stored beside it, unless its output is a URL.
    pub fn into_prediction(self) -> Prediction {
        let mut prediction = self.record.prediction;
        if let (Some(first), None, Status::Succeeded) = (self.picture, &prediction.output, prediction.status) {
            let pictures = std::iter::once(first).chain(self.more);
            prediction.output = Some(Output::of(pictures.map(|picture| output::data_uri(&picture)).collect()));
        }
        prediction
    }
}

/// Bytes that are stored beside a prediction and are removed with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Which one it is.
    pub which: Which,
    /// Its media type, such as `image/png`.
    pub media: String,
    /// Name under which it is served, if it is; unique among all predictions.
    pub file: Option<String>,
    /// The encoded picture.
    pub bytes: Arc<[u8]>,
}

/// Names one of the pictures of a prediction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Which {
    /// What it is for.
    pub kind: Kind,
    /// Its number among those of its kind, from 0.
    pub n: u32,
}

impl Which {
    /// The first output.
    pub const FIRST: Self = Self { kind: Kind::Output, n: 0 };

    /// Whether it is an output after the first.
    pub fn is_more(&self) -> bool {
        self.kind == Kind::Output && self.n > 0
    }
}

/// What a stored picture is for. Written as text, it is `output`, `thumbnail/WIDTH` or `input/FIELD`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// What the prediction made.
    Output,
    /// A smaller copy of an output, of a width in pixels.
    Thumbnail(u32),
    /// What the request gave in a field.
    Input(String),
}

impl fmt::Display for Kind {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output => to.write_str("output"),
            Self::Thumbnail(width) => write!(to, "thumbnail/{width}"),
            Self::Input(field) => write!(to, "input/{field}"),
        }
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once('/') {
            None if text == "output" => Ok(Self::Output),
            Some(("thumbnail", width)) => width.parse().map(Self::Thumbnail).map_err(|_| ()),
            Some(("input", field)) => Ok(Self::Input(field.to_owned())),
            _ => Err(()),
        }
    }
}

/// How many records a search for a text looks at, at most.
pub const MAX_LOOKED: usize = 500;
/// Bytes of records after which it looks at no more.
pub(super) const MAX_READ: usize = 8 << 20;

/// Which records to list, newest first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<'a> {
    /// Only those with a smaller number.
    pub before: Option<u64>,
    /// Only those with a greater number; the oldest of them, still newest first.
    pub after: Option<u64>,
    /// Only those with this status.
    pub status: Option<Status>,
    /// Only those whose prompt contains this text, in upper or lower case. What a search looks at is bounded: by
    /// [`MAX_LOOKED`], and by the size of the records.
    pub text: Option<&'a str>,
    /// The greatest length of the list.
    pub limit: usize,
}

/// What a query finds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The records, newest first.
    pub records: Vec<Record>,
    /// Number of the last record that a search for a text has looked at, if it ended before the list was full and may
    /// find more beyond it.
    pub looked: Option<u64>,
}

/// What a search for a text may still look at.
#[derive(Debug)]
pub(super) struct Search {
    text: String,
    records: usize,
    bytes: usize,
}

impl Search {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_lowercase(), records: 0, bytes: 0 }
    }

    /// Whether a prompt contains the text; `size` is what was read to find out.
    pub(super) fn finds(&mut self, prompt: &str, size: usize) -> bool {
        self.records += 1;
        self.bytes += size;
        prompt.to_lowercase().contains(&self.text)
    }

    /// Whether the prompt of a stored record contains the text. One that cannot be read is found, for whoever reads all
    /// of it to tell what is wrong.
    pub(super) fn finds_in(&mut self, json: &str) -> bool {
        let read: Result<Searched<'_>, _> = serde_json::from_str(json);
        let prompt = read.as_ref().map_or("", |read| &read.prediction.input.prompt);
        self.finds(prompt, json.len()) || read.is_err()
    }

    /// Whether it may look at one more.
    pub(super) fn goes_on(&self) -> bool {
        self.records < MAX_LOOKED && self.bytes < MAX_READ
    }
}

/// What a search reads of a record before it knows that it is wanted.
#[derive(Deserialize)]
struct Searched<'a> {
    #[serde(borrow)]
    prediction: SearchedPrediction<'a>,
}

#[derive(Deserialize)]
struct SearchedPrediction<'a> {
    #[serde(borrow)]
    input: SearchedInput<'a>,
}

#[derive(Deserialize)]
struct SearchedInput<'a> {
    #[serde(borrow)]
    prompt: Cow<'a, str>,
}

/// What is removed. Only predictions that have ended and owe no webhook are; the oldest go first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Those that ended longer ago than this.
    pub age: Option<Duration>,
    /// Those beyond this number of ended predictions.
    pub count: Option<u64>,
    /// Those beyond this many bytes of pictures.
    pub bytes: Option<u64>,
}

impl Retention {
    /// Whether it ever removes anything.
    pub fn is_limited(&self) -> bool {
        self.age.is_some() || self.count.is_some() || self.bytes.is_some()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::Value;

    use super::*;
    use crate::wire::tests::accepted;

    /// The record of a prediction that was just accepted, with this number.
    pub(crate) fn record_of(id: &str, input: &Value, seq: u64) -> Record {
        Record {
            prediction: accepted(id, input),
            seq,
            attempts: 0,
            webhook: None,
            output_file_prefix: None,
            wanted: Wanted::default(),
            file: None,
            deadline: None,
            key: None,
            asker: None,
        }
    }

    #[test]
    fn kinds_are_read_as_they_are_written() {
        for kind in [Kind::Output, Kind::Thumbnail(512), Kind::Input("image/left".to_owned())] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert!(
            ["", "outputs", "thumbnail/", "thumbnail/x", "inputs/a"].iter().all(|text| text.parse::<Kind>().is_err())
        );
    }
}
