//! A prediction as Replicate's clients read it.

use std::borrow::Cow;

use prediction::capability::Signer;
use prediction::webhook::Translate;
use prediction::wire::Metrics;
use prediction::{Prediction, Status, Time, output};
use protocol::{Format, Input};
use serde::Serialize;

use crate::config::ModelName;
use crate::http::made::Made;

/// What a name of a stream is made for.
const STREAM: &str = "stream";
/// What a name of a picture is made for.
const OUTPUT: &str = "output";

/// How predictions are shown.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// The name of the model.
    pub(crate) model: ModelName,
    /// Makes the names of streams and pictures.
    pub(crate) signer: Signer,
}

/// How a prediction shows its picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pictures {
    /// As its output is, or as a URL if that is one of `https`: clients take only such URLs and data URIs for files.
    Whole,
    /// As a URL: a list of whole pictures would be long.
    Linked,
}

/// What stands for a picture that a list leaves out: the beginning of its data URI.
fn left_out(format: Format) -> &'static str {
    match format {
        Format::Png => "data:image/png",
        Format::Jpeg => "data:image/jpeg",
        Format::Webp => "data:image/webp",
    }
}

/// The format of a data URI.
fn format_of(text: &str) -> Format {
    let formats = [Format::Jpeg, Format::Webp];
    formats.into_iter().find(|format| text.starts_with(left_out(*format))).unwrap_or_default()
}

/// The output: a text, as the schema of the model says, or several where several are asked for.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Shape<'a> {
    One(Cow<'a, str>),
    Several(Vec<Cow<'a, str>>),
}

/// A prediction in the words of Replicate.
#[derive(Debug, Serialize)]
pub(super) struct Shown<'a> {
    id: &'a str,
    model: &'a ModelName,
    version: &'a str,
    input: &'a Input,
    output: Option<Shape<'a>>,
    logs: &'a str,
    error: Option<&'a str>,
    status: Status,
    data_removed: bool,
    source: &'static str,
    created_at: Time,
    started_at: Option<Time>,
    completed_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Time>,
    metrics: &'a Metrics,
    urls: Urls,
}

#[derive(Debug, Serialize)]
struct Urls {
    get: String,
    cancel: String,
    web: String,
    stream: String,
}

impl Shown<'_> {
    /// The URL of the prediction.
    pub(super) fn address(&self) -> &str {
        &self.urls.get
    }
}

impl View {
    /// A prediction, for a client that reaches the server under `base`.
    pub(super) fn of<'a>(&'a self, prediction: &'a Prediction, base: &str, pictures: Pictures) -> Shown<'a> {
        let urls = &prediction.urls;
        let id = urls.get.rsplit_once('/').map_or("", |(_, id)| id);
        let get = format!("{base}/v1/predictions/{id}");
        Shown {
            id: &prediction.id,
            model: &self.model,
            version: prediction.version.as_deref().unwrap_or("hidden"),
            input: &prediction.input,
            output: self.output(prediction, base, pictures),
            logs: &prediction.logs,
            error: prediction.error.as_deref(),
            status: prediction.status,
            data_removed: false,
            source: "api",
            created_at: prediction.created_at,
            started_at: prediction.started_at,
            completed_at: prediction.completed_at,
            deadline: None,
            metrics: &prediction.metrics,
            urls: Urls {
                cancel: format!("{get}/cancel"),
                web: format!("{base}/playground#{id}"),
                stream: format!("{base}/v1/files/{STREAM}/{}", self.stream_name(prediction)),
                get,
            },
        }
    }

    /// A prediction that was just created, or waited for in vain. Only `starting` tells clients to look again: they
    /// take everything else for the end.
    pub(super) fn unfinished<'a>(
        &'a self,
        prediction: &'a Prediction,
        base: &str,
        deadline: Option<Time>,
    ) -> Shown<'a> {
        let shown = self.of(prediction, base, Pictures::Whole);
        if prediction.status.is_terminal() {
            return shown;
        }
        Shown { status: Status::Starting, started_at: None, deadline, ..shown }
    }

    /// The output, if there is any.
    fn output<'a>(&self, prediction: &'a Prediction, base: &str, pictures: Pictures) -> Option<Shape<'a>> {
        let Prediction { input, output, urls, .. } = prediction;
        let of = Made::of(prediction);
        let left_out = left_out(input.output_format);
        let shown: Vec<Cow<'a, str>> = match output {
            Some(output) => (0..)
                .zip(output.pictures())
                .map(|(n, text)| {
                    // A list has URLs that need a token.
                    let text: &str = if **text == urls.picture(n) { left_out } else { text };
                    self.picture((&of, n), text, base, pictures)
                })
                .collect(),
            None if prediction.status == Status::Succeeded => {
                (0..input.num_outputs).map(|n| self.picture((&of, n), left_out, base, pictures)).collect()
            }
            None => return None,
        };
        if input.num_outputs > 1 { Some(Shape::Several(shown)) } else { shown.into_iter().next().map(Shape::One) }
    }

    /// A picture of a prediction, by its number: a data URI, or its URL.
    pub(super) fn picture<'a>(
        &self,
        (of, n): (&Made, u32),
        text: &'a str,
        base: &str,
        pictures: Pictures,
    ) -> Cow<'a, str> {
        let is_linked = pictures == Pictures::Linked || base.starts_with("https:") || !text.contains(',');
        if !text.starts_with("data:") || !is_linked {
            return text.into();
        }
        let (name, end) = (self.signer.name(OUTPUT, &format!("{n}/{of}")), format_of(text).extension());
        format!("{base}/v1/files/{OUTPUT}/{name}.{end}").into()
    }

    /// The name of the events of a prediction.
    fn stream_name(&self, prediction: &Prediction) -> String {
        self.signer.name(STREAM, &Made::of(prediction).to_string())
    }

    /// The prediction whose events have a name.
    pub(super) fn stream_of(&self, name: &str) -> Option<Made> {
        Made::read(&self.signer.id(STREAM, name)?)
    }

    /// The prediction and the number of the picture of a name.
    pub(super) fn picture_of(&self, name: &str) -> Option<(Made, u32)> {
        let named = self.signer.id(OUTPUT, output::stem(name).unwrap_or(name))?;
        let (n, made) = named.split_once('/')?;
        Some((Made::read(made)?, n.parse().ok()?))
    }
}

impl Translate for View {
    fn translate(&self, prediction: &Prediction) -> serde_json::Result<Vec<u8>> {
        let base = prediction.urls.get.rsplit_once("/predictions/").map_or("", |(base, _)| base);
        serde_json::to_vec(&self.of(prediction, base, Pictures::Linked))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn prediction(status: &str, output: &Value) -> Prediction {
        let url = "http://here/predictions/a%2Fb";
        let urls = json!({ "get": url, "cancel": "", "stream": "" });
        let input = prediction::input::parse(&json!({"prompt": "a"}), None).unwrap().input;
        serde_json::from_value(json!({
            "completed_at": null, "created_at": "2026-11-24T06:08:00Z", "error": null, "id": "a/b", "input": input,
            "logs": "", "metrics": {}, "model": "demo", "output": output, "started_at": "2026-11-24T06:08:01Z",
            "status": status, "urls": urls, "version": "5a"
        }))
        .unwrap()
    }

    fn made_at(text: &str) -> Time {
        serde_json::from_value(json!(text)).unwrap()
    }

    fn view() -> View {
        View { model: "acme/pano".parse().unwrap(), signer: Signer::random().unwrap() }
    }

    fn shown(view: &View, prediction: &Prediction, base: &str, pictures: Pictures) -> Value {
        serde_json::to_value(view.of(prediction, base, pictures)).unwrap()
    }

    #[test]
    fn what_clients_require_is_there() {
        let view = view();
        let shown = shown(&view, &prediction("processing", &json!(null)), "http://x", Pictures::Whole);
        assert_eq!(
            (&shown["model"], &shown["version"], &shown["id"]),
            (&json!("acme/pano"), &json!("5a"), &json!("a/b"))
        );
        for (name, path) in [("get", "v1/predictions/a%2Fb"), ("cancel", "v1/predictions/a%2Fb/cancel")] {
            assert_eq!(shown["urls"][name], format!("http://x/{path}"));
        }
        let stream = shown["urls"]["stream"].as_str().unwrap().strip_prefix("http://x/v1/files/stream/").unwrap();
        assert!(view.stream_of(stream).unwrap().is(&prediction("processing", &json!(null))));
        assert_eq!(view.stream_of(&view.signer.name(STREAM, "a/b")), None, "a name of an earlier build");
        assert!(shown["urls"].as_object().unwrap().values().all(Value::is_string));
        assert_eq!(
            (&shown["output"], &shown["error"], &shown["data_removed"]),
            (&json!(null), &json!(null), &json!(false))
        );
    }

    #[test]
    fn only_starting_is_unfinished() {
        let view = view();
        for (status, expected) in
            [("starting", "starting"), ("processing", "starting"), ("succeeded", "succeeded"), ("failed", "failed")]
        {
            let prediction = prediction(status, &json!(null));
            let shown = serde_json::to_value(view.unfinished(&prediction, "http://x", None)).unwrap();
            assert_eq!((&shown["status"], shown["started_at"].is_null()), (&json!(expected), expected == "starting"));
        }
    }

    #[test]
    fn a_picture_is_what_clients_take_for_a_file() {
        let view = view();
        let made = Made::of(&prediction("succeeded", &json!(null)));
        let later = Prediction { created_at: made_at("2026-11-24T06:08:01Z"), ..prediction("succeeded", &json!(null)) };
        assert!(made.id == later.id && !made.is(&later), "the id is used again");
        let output = |output: Value, base: &str, pictures: Pictures| {
            shown(&view, &prediction("succeeded", &output), base, pictures)["output"].as_str().unwrap().to_owned()
        };
        let (data, whole, linked) = (json!("data:image/png;base64,AA"), Pictures::Whole, Pictures::Linked);
        assert_eq!(output(data.clone(), "http://x", whole), "data:image/png;base64,AA");
        for link in [
            output(data.clone(), "https://x", whole),
            output(data.clone(), "https://x", linked),
            output(json!(null), "https://x", linked),
            output(json!("http://here/predictions/a%2Fb/output"), "https://x", linked),
            output(json!(["data:image/png;base64,AA"]), "https://x", linked),
        ] {
            let name = link.strip_prefix("https://x/v1/files/output/").unwrap();
            assert!(view.picture_of(name) == Some((made.clone(), 0)) && name.strip_suffix(".png").is_some(), "{name}");
        }
        for pictures in [whole, linked] {
            assert_eq!(output(json!("http://bucket/x.png"), "https://x", pictures), "http://bucket/x.png");
        }
        let mut several = prediction("succeeded", &json!(["data:image/png;base64,AA", "http://bucket/x.png"]));
        several.input.num_outputs = 2;
        let several = shown(&view, &several, "https://x", whole)["output"].clone();
        let first = several[0].as_str().unwrap().strip_prefix("https://x/v1/files/output/").unwrap();
        assert_eq!((view.picture_of(first), &several[1]), (Some((made, 0)), &json!("http://bucket/x.png")));
        let body = view.translate(&prediction("succeeded", &data)).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert!(body["output"].as_str().unwrap().starts_with("http://here/v1/files/output/"), "{body}");
        assert_eq!(body["urls"]["get"], "http://here/v1/predictions/a%2Fb");
    }
}
