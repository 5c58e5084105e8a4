//! The keys of a request that are OpenAI's and not inputs of the model: their values, or why they cannot be had.

use prediction::shown::shown_up_to;
use serde::Deserialize;

use super::errors::Fault;
use crate::http::common::{MAX_TEXT, Scalar};

/// The most pictures of a request.
const MAX_N: i64 = 10;
/// The most partial images of a picture.
const MAX_PARTIAL: i64 = 3;

/// OpenAI's keys.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Own {
    pub(super) model: Scalar,
    pub(super) safety_identifier: Scalar,
    pub(super) user: Scalar,
    pub(super) webhook: Scalar,
    n: Scalar,
    size: Scalar,
    quality: Scalar,
    output_format: Scalar,
    output_compression: Scalar,
    background: Scalar,
    response_format: Scalar,
    stream: Scalar,
    partial_images: Scalar,
    frame_count: Scalar,
    frame_duration_ms: Scalar,
    svg: Scalar,
    /// Whether its picture is in `images`.
    #[serde(skip)]
    pub(super) has_images: bool,
}

/// Keys that are known, those included that are ignored because they change nothing here.
pub(super) const KNOWN: [&str; 20] = [
    "background",
    "complexity",
    "frame_count",
    "frame_duration_ms",
    "input_fidelity",
    "model",
    "moderation",
    "n",
    "output_compression",
    "output_format",
    "partial_images",
    "quality",
    "response_format",
    "safety_identifier",
    "size",
    "stream",
    "style",
    "svg",
    "user",
    "webhook",
];

/// What a picture is in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Base64,
    Url,
}

impl Own {
    /// What nobody can have here.
    pub(super) fn check(&self) -> Result<(), Fault> {
        for (name, value) in [("safety_identifier", &self.safety_identifier), ("user", &self.user)] {
            if value.text().is_some_and(|text| text.len() > MAX_TEXT) {
                return Err(Fault::invalid(name, format!("`{name}` is longer than the maximum of {MAX_TEXT} bytes")));
            }
        }
        match self.background.text() {
            Some("transparent") => {
                return Err(Fault::invalid("background", "pictures are opaque; use `opaque` or `auto`"));
            }
            None if self.background.is_absent() => {}
            Some("auto" | "opaque") => {}
            _ => return Err(wrong("background", &self.background, "use `opaque` or `auto`")),
        }
        for (name, value) in
            [("frame_count", &self.frame_count), ("frame_duration_ms", &self.frame_duration_ms), ("svg", &self.svg)]
        {
            if !value.is_absent() {
                return Err(Fault::invalid(
                    name,
                    format!("there are no animations and no vector graphics; leave `{name}` out"),
                ));
            }
        }
        Ok(())
    }

    /// How many pictures, if that is said.
    pub(super) fn n(&self) -> Result<Option<u32>, Fault> {
        let advice = "use a whole number from 1 to 10";
        match self.n {
            Scalar::Whole(n) if (1..=MAX_N).contains(&n) => Ok(Some(n as u32)),
            _ if self.n.is_absent() => Ok(None),
            _ => Err(wrong("n", &self.n, advice)),
        }
    }

    /// Width and height, unless they are left to the model.
    pub(super) fn size(&self) -> Result<Option<(u64, u64)>, Fault> {
        let advice = "use `WIDTHxHEIGHT`, such as `2048x512`, or `auto`";
        let Some(text) = self.size.text() else {
            return if self.size.is_absent() { Ok(None) } else { Err(wrong("size", &self.size, advice)) };
        };
        if text == "auto" {
            return Ok(None);
        }
        let side = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let sides = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
        sides.map(Some).ok_or_else(|| wrong("size", &self.size, advice))
    }

    /// Whether less work is asked for.
    pub(super) fn is_low(&self) -> Result<bool, Fault> {
        match self.quality.text() {
            None if self.quality.is_absent() => Ok(false),
            Some("low") => Ok(true),
            Some("auto" | "medium" | "high" | "xhigh" | "max" | "standard" | "hd") => Ok(false),
            _ => {
                let advice = "use `low`, `medium`, `high`, `xhigh`, `max`, `standard`, `hd` or `auto`";
                Err(wrong("quality", &self.quality, advice))
            }
        }
    }

    pub(super) fn format(&self) -> Result<&'static str, Fault> {
        match self.output_format.text() {
            None if self.output_format.is_absent() => Ok("png"),
            Some("png") => Ok("png"),
            Some("jpeg" | "jpg") => Ok("jpeg"),
            Some("webp") => Ok("webp"),
            _ => Err(wrong("output_format", &self.output_format, "use `png`, `jpeg` or `webp`")),
        }
    }

    /// The quality of a picture that is compressed with losses.
    pub(super) fn compression(&self) -> Result<Option<u8>, Fault> {
        match self.output_compression {
            Scalar::Whole(percent) if (0..=100).contains(&percent) => Ok(Some(percent as u8)),
            _ if self.output_compression.is_absent() => Ok(None),
            _ => Err(wrong("output_compression", &self.output_compression, "use a whole number from 0 to 100")),
        }
    }

    /// What the pictures of the answer are; `usual` if nothing is said.
    pub(super) fn form(&self, usual: Form) -> Result<Form, Fault> {
        match self.response_format.text() {
            None if self.response_format.is_absent() => Ok(usual),
            Some("b64_json") => Ok(Form::Base64),
            Some("url") => Ok(Form::Url),
            _ => Err(wrong("response_format", &self.response_format, "use `b64_json` or `url`")),
        }
    }

    pub(super) fn stream(&self) -> Result<bool, Fault> {
        match self.stream {
            Scalar::Flag(stream) => Ok(stream),
            _ if self.stream.is_absent() => Ok(false),
            _ => Err(wrong("stream", &self.stream, "use `true` or `false`")),
        }
    }

    pub(super) fn partial_images(&self) -> Result<u32, Fault> {
        match self.partial_images {
            Scalar::Whole(n) if (0..=MAX_PARTIAL).contains(&n) => Ok(n as u32),
            _ if self.partial_images.is_absent() => Ok(0),
            _ => Err(wrong("partial_images", &self.partial_images, "use a whole number from 0 to 3")),
        }
    }

    /// Who asks, as the client says; for the log.
    pub(super) fn asker(&self) -> Option<&str> {
        self.safety_identifier.text().or_else(|| self.user.text())
    }
}

/// A value that is not valid.
fn wrong(param: &str, value: &Scalar, advice: &str) -> Fault {
    let shown = match value {
        Scalar::Absent => "null".to_owned(),
        Scalar::Flag(flag) => flag.to_string(),
        Scalar::Whole(number) => number.to_string(),
        Scalar::Number(number) => number.to_string(),
        Scalar::Text(text) => shown_up_to(text, 40).to_string(),
        Scalar::Other => "a list or an object".to_owned(),
    };
    Fault::invalid(param, format!("`{shown}` is not a valid `{param}`; {advice}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn own(value: &Value) -> Own {
        serde_json::from_str(&value.to_string()).unwrap()
    }

    #[test]
    fn what_is_left_out_or_empty_is_the_default() {
        for value in [json!({}), json!({"n": null, "size": null, "stream": null}), json!({"size": "", "quality": ""})] {
            let own = own(&value);
            assert!(own.check().is_ok(), "{value}");
            let sizes = (own.n().unwrap(), own.size().unwrap(), own.partial_images().unwrap());
            assert_eq!(sizes, (None, None, 0), "{value}");
            let rest = (own.is_low().unwrap(), own.format().unwrap(), own.form(Form::Url).unwrap());
            assert_eq!(rest, (false, "png", Form::Url), "{value}");
            assert!(!own.stream().unwrap() && own.asker().is_none(), "{value}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        for (key, value) in [
            ("background", json!("transparent")),
            ("background", json!(1)),
            ("frame_count", json!(2)),
            ("svg", json!({})),
            ("n", json!(0)),
            ("n", json!(11)),
            ("n", json!("2")),
            ("n", json!(1.5)),
            ("size", json!("2048")),
            ("size", json!("axb")),
            ("size", json!("-1x5")),
            ("size", json!("+512x512")),
            ("size", json!("512x512x512")),
            ("size", json!([512, 512])),
            ("quality", json!("best")),
            ("output_format", json!("gif")),
            ("output_format", json!("svg")),
            ("output_compression", json!(101)),
            ("response_format", json!("file")),
            ("stream", json!("yes")),
            ("partial_images", json!(4)),
        ] {
            let own = own(&json!({key: value}));
            let all = [
                own.check().err(),
                own.n().err(),
                own.size().err(),
                own.is_low().err(),
                own.format().err(),
                own.compression().err(),
                own.form(Form::Base64).err(),
                own.stream().err(),
                own.partial_images().err(),
            ];
            let faults: Vec<Value> = all.into_iter().flatten().map(|fault| fault.body()).collect();
            assert_eq!(faults.len(), 1, "{key} {value}");
            assert_eq!(
                (&faults[0]["error"]["param"], &faults[0]["error"]["code"]),
                (&json!(key), &json!("invalid_value"))
            );
        }
    }

    #[test]
    fn sizes_are_any_numbers() {
        let size = |text: &str| own(&json!({"size": text})).size().unwrap();
        assert_eq!(size("1000x600"), Some((1000, 600)));
        assert_eq!(size("256x256"), Some((256, 256)));
        assert_eq!(size("auto"), None);
    }
}
