//! What a request for pictures asks for.

use prediction::given_pictures::Fitting;
use prediction::input::{self, Geometry, Given, Sent};
use prediction::output::Wanted;
use protocol::Input;
use serde_json::{Map, Value};

use super::errors::Fault;
use super::models;
use super::options::{Form, KNOWN, Own};
use crate::config::ModelName;
use crate::http::body;
use crate::http::common::{Names, fit, random_seed};

/// Steps of the quality `low`.
const LOW_STEPS: u32 = 25;
/// How far a picture is drawn again that fills what is drawn, where a request does not say it: the default of other
/// programs.
const REDRAWN: f64 = 0.75;

/// A request that is valid.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) input: Input,
    /// Pictures that came with it.
    pub(super) sent: Sent,
    pub(super) wanted: Wanted,
    pub(super) fitting: Fitting,
    pub(super) webhook: Option<String>,
    pub(super) stream: bool,
    pub(super) partial_images: u32,
    pub(super) shape: Shape,
    /// What the request calls its inputs.
    pub(super) names: Names,
    /// Keys that nobody knows.
    pub(super) unknown: Vec<String>,
}

/// What an answer says of its pictures.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) form: Form,
    pub(super) size: (u32, u32),
    pub(super) format: &'static str,
    pub(super) quality: &'static str,
    /// Who asks, as the client says.
    pub(super) asker: Option<String>,
}

impl Shape {
    /// The size as OpenAI writes it.
    pub(super) fn size(&self) -> String {
        format!("{}x{}", self.size.0, self.size.1)
    }
}

impl Asked {
    /// Reads a body of JSON.
    pub(super) fn read(bytes: &[u8], geometry: Option<Geometry>, ours: &ModelName) -> Result<Self, Fault> {
        let bytes = json_object(bytes)?;
        let own: Own = serde_json::from_slice(bytes).map_err(|error| unread(&error))?;
        let given: Given = serde_json::from_slice(bytes).map_err(|error| unread(&error))?;
        Self::of(&own, given, geometry, ours)
    }

    /// A request that has a picture. One that leaves nothing to draw is drawn again.
    pub(super) fn edit(own: &Own, given: Given, geometry: Option<Geometry>, ours: &ModelName) -> Result<Self, Fault> {
        let fitting = Fitting { redraw: Some(REDRAWN), ..Fitting::default() };
        Ok(Self { fitting, ..Self::of(own, given, geometry, ours)? })
    }

    fn of(own: &Own, given: Given, geometry: Option<Geometry>, ours: &ModelName) -> Result<Self, Fault> {
        let mut inputs = match given.value {
            Value::Object(inputs) => inputs,
            _ => Map::new(),
        };
        // Clients send null for what they leave out.
        inputs.retain(|_, value| !value.is_null());
        if !inputs.get("prompt").is_some_and(Value::is_string) {
            let message = "`prompt` is missing; say what is to be drawn";
            return Err(Fault::refused(Some("prompt"), "missing_required_parameter", message));
        }
        let name = own.model.text().unwrap_or_default();
        if !own.model.is_absent() && (name.is_empty() || !models::is_ours(name, ours)) {
            return Err(models::unknown(name, ours));
        }
        own.check()?;
        let usual = if models::expects_url(name) { Form::Url } else { Form::Base64 };
        let (form, format, low) = (own.form(usual)?, own.format()?, own.is_low()?);
        let (stream, partial_images) = (own.stream()?, own.partial_images()?);
        let names = names(own, &inputs)?;
        inputs.insert("output_format".to_owned(), format.into());
        if let Some(percent) = own.compression()? {
            inputs.entry("output_quality").or_insert_with(|| percent.max(1).into());
        }
        if let Some(n) = own.n()? {
            inputs.insert("num_outputs".to_owned(), n.into());
        }
        let crop = sized(own, &mut inputs, geometry)?;
        if low && !inputs.contains_key("num_inference_steps") && !inputs.contains_key("preset") {
            inputs.insert("num_inference_steps".to_owned(), LOW_STEPS.into());
        }
        inputs.entry("seed").or_insert_with(|| random_seed().into());
        let parsed =
            input::parse(&Value::Object(inputs), geometry).map_err(|errors| Fault::inputs(&names.invalid(errors)))?;
        let input = parsed.input;
        let unknown = given.unknown.into_iter().filter(|name| !KNOWN.contains(&name.as_str())).collect();
        let shape = Shape {
            form,
            size: crop.unwrap_or((input.width, input.height)),
            format,
            quality: if low { "low" } else { "high" },
            asker: own.asker().map(str::to_owned),
        };
        let wanted = Wanted { crop, named: form == Form::Url && !stream };
        let webhook = own.webhook.text().map(str::to_owned);
        let fitting = Fitting::default();
        Ok(Self { input, sent: given.sent, wanted, fitting, webhook, stream, partial_images, shape, names, unknown })
    }
}

/// What a request calls inputs that are other keys here.
fn names(own: &Own, given: &Map<String, Value>) -> Result<Names, Fault> {
    let mut names = Names::default();
    if own.n()?.is_some() {
        names.add("num_outputs", "n");
    }
    if own.size()?.is_some() {
        for side in ["width", "height"] {
            if !given.contains_key(side) {
                names.add_part(side, "size");
            }
        }
    }
    if own.compression()?.is_some() && !given.contains_key("output_quality") {
        names.add("output_quality", "output_compression");
    }
    if own.has_images {
        names.add("image", "images");
    }
    Ok(names)
}

/// What of a body may be an object of JSON.
pub(super) fn json_object(bytes: &[u8]) -> Result<&[u8], Fault> {
    let bytes = body::unmarked(bytes);
    let is_object = bytes.trim_ascii_start().starts_with(b"{");
    if is_object { Ok(bytes) } else { Err(unread(&"it does not begin with `{`")) }
}

fn unread(error: &dyn std::fmt::Display) -> Fault {
    Fault::refused(None, "invalid_json", format!("the body is not a JSON object: {error}"))
}

/// Has `width` and `height` be what is drawn for the `size`, and returns what is kept of that if it is less.
fn sized(own: &Own, inputs: &mut Map<String, Value>, geometry: Option<Geometry>) -> Result<Option<(u32, u32)>, Fault> {
    let Some((width, height)) = own.size()? else { return Ok(None) };
    for (name, asked) in [("width", width), ("height", height)] {
        if let Some(given) = inputs.get(name).filter(|given| given.as_f64() != Some(asked as f64)) {
            let given = prediction::shown::shown_up_to(&given.to_string(), 40).to_string();
            let message = format!("`size` is `{width}x{height}`, but `{name}` is `{given}`; leave one of them out");
            return Err(Fault::invalid("size", message));
        }
    }
    let given = Value::Object(std::mem::take(inputs));
    let made = fit((width, height), &given, geometry);
    if let Value::Object(given) = given {
        *inputs = given;
    }
    let made = made.map_err(|(w, h)| {
        let message = format!("pictures of `{width}x{height}` cannot be drawn; the nearest size that can is `{w}x{h}`");
        Fault::invalid("size", message)
    })?;
    let (w, h) = made.drawn;
    let is = |name: &str| inputs.get(name) == Some(&Value::Bool(true));
    if made.crop.is_some() && (is("loop_closure") || is("seamless")) {
        let message = format!(
            "a loop of `{width}x{height}` would be cut open; use a size that is drawn whole, such as `{w}x{h}`"
        );
        return Err(Fault::invalid("size", message));
    }
    inputs.insert("width".to_owned(), w.into());
    inputs.insert("height".to_owned(), h.into());
    Ok(made.crop)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: &Value) -> Result<Asked, Value> {
        let ours = "owner/name".parse().unwrap();
        let read = Asked::read(body.to_string().as_bytes(), Some(Geometry::default()), &ours);
        read.map_err(|fault| fault.body()["error"].clone())
    }

    #[test]
    fn sizes_and_inputs_are_put_together() {
        let asked = read(&json!({"prompt": "a", "size": "1000x600", "seed": 7, "guidance_scale": 5, "n": 3})).unwrap();
        assert_eq!((asked.input.width, asked.input.height, asked.input.seed), (1024, 640, 7));
        assert_eq!((asked.input.guidance_scale, asked.input.num_outputs), (5.0, 3));
        assert_eq!((asked.wanted.crop, asked.shape.size()), (Some((1000, 600)), "1000x600".to_owned()));
        let whole = read(&json!({"prompt": "a", "size": "1152x512", "stride": 32.0})).unwrap();
        assert_eq!((whole.input.width, whole.wanted.crop), (1280, Some((1152, 512))), "`32.0` is an integer");
        let auto = read(&json!({"prompt": "a", "size": "auto", "stride": null})).unwrap();
        assert_eq!((auto.wanted, auto.shape.size()), (Wanted::default(), "2048x512".to_owned()));
        let own = read(&json!({"prompt": "a", "width": 1024, "size": "1024x512"})).unwrap();
        assert_eq!(own.shape.size, (1024, 512));
        for (body, param, words) in [
            (json!({"prompt": "a", "size": "1024x512", "width": 2048}), "size", "but `width` is `2048`"),
            (json!({"prompt": "a", "size": "256x256"}), "size", "is `512x512`"),
            (json!({"prompt": "a", "size": "1000x512", "loop_closure": true}), "size", "`1024x512`"),
            (json!({"prompt": "a", "width": 1000}), "width", "1000 is not a multiple"),
            (json!({"prompt": "a", "seed": u64::MAX, "n": 2}), "seed", "too few seeds after it for `n` 2"),
            (json!({"prompt": "a", "seed": u64::MAX, "num_outputs": 2}), "seed", "for `num_outputs` 2"),
            (
                json!({"prompt": "a", "size": "2048x1024", "loop_closure": true}),
                "size",
                "is not the height of one window",
            ),
            (json!({"prompt": "a", "height": 1024, "loop_closure": true}), "height", "is not the height of one window"),
            (json!({"prompt": "a", "guidance_scale": 50, "stride": 5}), "guidance_scale", "`stride`: 5 is less"),
            (json!({"prompt": "a", "model": "sdxl"}), "model", "there is no model `sdxl`"),
        ] {
            let error = read(&body).unwrap_err();
            assert_eq!(error["param"], json!(param), "{error}");
            assert!(error["message"].as_str().unwrap().contains(words), "{error}");
        }
    }

    #[test]
    fn habits_decide_what_is_not_said() {
        let form = |body| read(&body).unwrap().shape.form;
        assert_eq!(form(json!({"prompt": "a"})), Form::Base64);
        assert_eq!(form(json!({"prompt": "a", "model": "dall-e-2"})), Form::Url);
        assert_eq!(form(json!({"prompt": "a", "model": "dall-e-3", "response_format": "b64_json"})), Form::Base64);
        assert!(read(&json!({"prompt": "a", "model": "dall-e-3"})).unwrap().wanted.named);
        let steps = |body| read(&body).unwrap().input.num_inference_steps;
        assert_eq!(steps(json!({"prompt": "a", "quality": "low"})), 25);
        assert_eq!(steps(json!({"prompt": "a", "quality": "low", "num_inference_steps": 9})), 9);
        assert_eq!(steps(json!({"prompt": "a", "quality": "low", "preset": "fast"})), 20);
        assert_eq!(steps(json!({"prompt": "a", "quality": "hd"})), 50);
    }

    #[test]
    fn formats_are_those_of_the_inputs() {
        let quality = |body| {
            let input = read(&body).unwrap().input;
            (input.output_format.media(), input.output_quality)
        };
        let jpeg = json!({"prompt": "a", "output_format": "jpeg", "output_compression": 60});
        assert_eq!(quality(jpeg), ("image/jpeg", 60));
        assert_eq!(quality(json!({"prompt": "a", "output_format": "webp"})).0, "image/webp");
        assert_eq!(quality(json!({"prompt": "a", "output_compression": 0})), ("image/png", 1));
    }

    #[test]
    fn seeds_differ_unless_one_is_given() {
        let seed = || read(&json!({"prompt": "a"})).unwrap().input.seed;
        assert!((0..4).map(|_| seed()).collect::<std::collections::HashSet<_>>().len() > 1);
    }

    #[test]
    fn what_is_not_a_request_is_refused() {
        for body in ["", "[]", "null", "\"x\"", "{bad", "[{}]", "{\"prompt\":\"a\",\"n\":1,\"n\":2}"] {
            let fault = Asked::read(body.as_bytes(), None, &"owner/name".parse().unwrap()).unwrap_err().body();
            assert_eq!(fault["error"]["code"], "invalid_json", "{body}");
        }
        for body in [json!({}), json!({"prompt": null}), json!({"prompt": 5})] {
            let error = read(&body).unwrap_err();
            assert_eq!((&error["param"], &error["code"]), (&json!("prompt"), &json!("missing_required_parameter")));
        }
        let asked = read(&json!({"prompt": "a", "style": "vivid", "moderation": "low", "strange": 1})).unwrap();
        assert_eq!(asked.unknown, ["strange"]);
    }
}
