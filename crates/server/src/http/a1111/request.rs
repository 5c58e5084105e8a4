//! What a request of this API asks for.

use prediction::given_pictures::Fitting;
use prediction::input::table::Kind;
use prediction::input::{self, Geometry, Given, Sent, TABLE, fitted, table};
use prediction::output::Wanted;
use protocol::Input;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::errors::Fault;
use super::init::Init;
use super::lists::SAMPLERS;
use crate::http::body;
use crate::http::common::{Names, Scalar, fit, random_seed};

/// The most pictures of a request.
const MAX_N: i64 = 10;

/// Keys of this API that mean inputs under other names. What it has besides is ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Own {
    steps: Scalar,
    cfg_scale: Scalar,
    sampler_name: Scalar,
    sampler_index: Scalar,
    batch_size: Scalar,
    n_iter: Scalar,
}

/// Which route pictures are asked for at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Txt2Img,
    Img2Img,
}

impl Route {
    /// What progress calls a job.
    pub(super) fn job(self) -> &'static str {
        match self {
            Self::Txt2Img => "txt2img",
            Self::Img2Img => "img2img",
        }
    }
}

/// A request that is valid.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) input: Input,
    /// Pictures that came with it.
    pub(super) sent: Sent,
    pub(super) wanted: Wanted,
    pub(super) fitting: Fitting,
    /// Width and height of the pictures.
    pub(super) size: (u32, u32),
    /// What the request calls its inputs.
    pub(super) names: Names,
}

impl Asked {
    /// Reads a body of JSON; one of `img2img` has a picture.
    pub(super) fn read(bytes: &[u8], route: Route, geometry: Option<Geometry>) -> Result<Self, Fault> {
        let bytes = body::unmarked(bytes);
        let unread = |error: &dyn std::fmt::Display| Fault::invalid(format!("the body is not a JSON object: {error}"));
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(unread(&"it does not begin with `{`"));
        }
        let own: Own = serde_json::from_slice(bytes).map_err(|error| unread(&error))?;
        let mut given: Given = serde_json::from_slice(bytes).map_err(|error| unread(&error))?;
        let mut inputs = match given.value.take() {
            Value::Object(inputs) => inputs,
            _ => Map::new(),
        };
        inputs.retain(|_, value| !value.is_null());
        inputs.entry("prompt").or_insert_with(|| "".into());
        let names = names(&own, &inputs, route);
        if let Some(n) = times(&own)? {
            inputs.insert("num_outputs".to_owned(), n.into());
        }
        rename(&mut inputs, "num_inference_steps", &own.steps);
        rename(&mut inputs, "guidance_scale", &own.cfg_scale);
        schedule(&mut inputs, &own);
        let fitting = match route {
            Route::Txt2Img => Fitting::default(),
            Route::Img2Img => {
                let init: Init = serde_json::from_slice(bytes).map_err(|error| unread(&error))?;
                rename(&mut inputs, "strength", &init.denoising_strength);
                init.apply(&mut given, &mut inputs)?
            }
        };
        read_numbers(&mut inputs);
        // -1 is any.
        if inputs.get("seed").is_none_or(|seed| seed.as_f64().is_some_and(|seed| seed < 0.0)) {
            inputs.insert("seed".to_owned(), random_seed().into());
        }
        let crop = sized(&mut inputs, geometry)?;
        let parsed =
            input::parse(&Value::Object(inputs), geometry).map_err(|errors| Fault::inputs(&names.invalid(errors)))?;
        let input = parsed.input;
        let size = crop.unwrap_or((input.width, input.height));
        let wanted = Wanted { crop, named: false };
        Ok(Self { input, sent: given.sent, wanted, fitting, size, names })
    }
}

/// What a request calls inputs: as this API does, unless it gives them under their own names.
fn names(own: &Own, given: &Map<String, Value>, route: Route) -> Names {
    let count = if own.batch_size.is_absent() && !own.n_iter.is_absent() { "n_iter" } else { "batch_size" };
    let is_index = own.sampler_name.text().is_none() && own.sampler_index.text().is_some();
    let sampler = if is_index { "sampler_index" } else { "sampler_name" };
    let mut names = Names::default();
    for (input, field, is_ours) in [
        ("num_inference_steps", "steps", true),
        ("guidance_scale", "cfg_scale", true),
        ("image", "init_images", route == Route::Img2Img),
        ("strength", "denoising_strength", route == Route::Img2Img),
    ] {
        if is_ours && !given.contains_key(input) {
            names.add(input, field);
        }
    }
    if !given.contains_key("num_outputs") || !own.batch_size.is_absent() || !own.n_iter.is_absent() {
        names.add("num_outputs", count);
    }
    if !names_scheduler(given) {
        names.add("scheduler", sampler);
    }
    names
}

/// Has inputs be numbers that came as texts, which the original reads as such.
fn read_numbers(inputs: &mut Map<String, Value>) {
    for field in &TABLE {
        let Some(text) = inputs.get(field.name).and_then(Value::as_str).map(str::trim) else { continue };
        let number = match field.kind {
            Kind::Integer { .. } => {
                text.parse::<u64>().map(Value::from).or_else(|_| text.parse::<i64>().map(Value::from)).ok()
            }
            Kind::Number { .. } => text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from),
            _ => None,
        };
        if let Some(number) = number {
            inputs.insert(field.name.to_owned(), number);
        }
    }
}

/// How many pictures, if that is said.
fn times(own: &Own) -> Result<Option<i64>, Fault> {
    if own.batch_size.is_absent() && own.n_iter.is_absent() {
        return Ok(None);
    }
    let count = |name: &str, value: &Scalar| {
        let n = if value.is_absent() { Some(1) } else { value.whole() };
        let n = n.filter(|n| (1..=MAX_N).contains(n));
        n.ok_or_else(|| Fault::invalid(format!("`{name}`: use a whole number from 1 to {MAX_N}")))
    };
    let n = count("batch_size", &own.batch_size)? * count("n_iter", &own.n_iter)?;
    if n > MAX_N {
        return Err(Fault::invalid(format!("`batch_size`: {n} pictures are asked for; the maximum is {MAX_N}")));
    }
    Ok(Some(n))
}

/// Has an input be what this API has under another name, unless it is given under its own.
fn rename(inputs: &mut Map<String, Value>, name: &str, value: &Scalar) {
    let value = match value {
        Scalar::Absent => return,
        Scalar::Flag(flag) => (*flag).into(),
        Scalar::Whole(number) => (*number).into(),
        Scalar::Number(number) => (*number).into(),
        Scalar::Text(text) => text.as_str().into(),
        Scalar::Other => Value::Array(Vec::new()),
    };
    inputs.entry(name).or_insert(value);
}

/// Whether `scheduler` is ours, and not what this API calls so: a noise schedule.
fn names_scheduler(given: &Map<String, Value>) -> bool {
    let words = match table::find("scheduler").map(|field| field.kind) {
        Some(Kind::Choice(words)) => words,
        _ => &[],
    };
    given.get("scheduler").and_then(Value::as_str).is_some_and(|word| words.contains(&word))
}

/// The scheduler is ours if it is named as such, or the sampler's; noise schedules and samplers that are not here are
/// ignored, because clients always send one.
fn schedule(inputs: &mut Map<String, Value>, own: &Own) {
    if names_scheduler(inputs) {
        return;
    }
    inputs.remove("scheduler");
    let name = own.sampler_name.text().or_else(|| own.sampler_index.text()).unwrap_or_default();
    let known = SAMPLERS.iter().find(|(known, alias)| known.eq_ignore_ascii_case(name) || *alias == name);
    if let Some((_, scheduler)) = known {
        inputs.insert("scheduler".to_owned(), (*scheduler).into());
    }
}

/// Has `width` and `height` be what is drawn for them, and returns what is kept of that if it is less.
fn sized(inputs: &mut Map<String, Value>, geometry: Option<Geometry>) -> Result<Option<(u32, u32)>, Fault> {
    if !inputs.contains_key("width") && !inputs.contains_key("height") {
        return Ok(None);
    }
    let usual = fitted::table(geometry.unwrap_or_default(), None);
    let side = |name: &str| {
        let default = || usual.iter().find(|field| field.name == name)?.default.value();
        let value = inputs.get(name).cloned().or_else(default)?;
        value.as_f64().filter(|size| *size >= 0.0 && size.fract() == 0.0).map(|size| size as u64)
    };
    // Anything else is refused with the other inputs.
    let (Some(width), Some(height)) = (side("width"), side("height")) else { return Ok(None) };
    let made = fit((width, height), &Value::Object(inputs.clone()), geometry).map_err(|(w, h)| {
        let message = "pictures of this size cannot be drawn; the nearest size that can is";
        Fault::invalid(format!("`width`, `height`: `{width}x{height}`: {message} `{w}x{h}`"))
    })?;
    let is = |name: &str| inputs.get(name) == Some(&Value::Bool(true));
    if made.crop.is_some() && (is("loop_closure") || is("seamless")) {
        let (w, h) = made.drawn;
        return Err(Fault::invalid(format!("`width`, `height`: a loop would be cut open; use `{w}x{h}`")));
    }
    inputs.insert("width".to_owned(), made.drawn.0.into());
    inputs.insert("height".to_owned(), made.drawn.1.into());
    Ok(made.crop)
}

#[cfg(test)]
mod tests {
    use prediction::given_pictures::Fill;
    use prediction::input::Invalid;
    use protocol::Scheduler;
    use serde_json::json;

    use super::*;

    fn read(body: &Value) -> Result<Asked, String> {
        read_as(Route::Txt2Img, body)
    }

    fn read_as(route: Route, body: &Value) -> Result<Asked, String> {
        let read = Asked::read(body.to_string().as_bytes(), route, Some(Geometry::default()));
        read.map_err(|fault| format!("{fault:?}"))
    }

    #[test]
    fn a_picture_is_drawn_again() {
        let picture = "aGk=";
        let read = |more: Value| {
            let mut body = json!({"prompt": "a", "init_images": [picture], "width": 1000, "height": 520});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            read_as(Route::Img2Img, &body)
        };
        let plain = read(json!({"mask": null, "init_images": [format!("data:image/png;base64,{picture}")]})).unwrap();
        assert_eq!((plain.input.strength, plain.fitting.fill), (Some(0.75), Some(Fill::Stretch)));
        assert!(plain.input.image.is_some() && !plain.sent.is_empty());
        let bare = read(json!({"denoising_strength": 0.5, "resize_mode": 1, "mask": ""})).unwrap();
        assert_eq!((bare.input.strength, bare.fitting.fill), (Some(0.5), Some(Fill::Cut)));
        assert_eq!((bare.sent, bare.wanted.crop), (plain.sent, Some((1000, 520))));
        for (mode, fill) in [
            (json!(0), Some(Fill::Stretch)),
            (json!(""), Some(Fill::Stretch)),
            (json!("3"), Some(Fill::Stretch)),
            (json!("1"), Some(Fill::Cut)),
            (json!(1.0), Some(Fill::Cut)),
            (json!(2), None),
            (json!(" 2 "), None),
        ] {
            let fitting = read(json!({"resize_mode": mode})).unwrap().fitting;
            assert_eq!(fitting, Fitting { fill, redraw: None }, "{mode}");
        }
        for mode in [json!(4), json!(-1), json!("crop"), json!(1.5), json!(true), json!([1])] {
            let error = read(json!({"resize_mode": mode})).unwrap_err();
            assert!(error.contains("`resize_mode`: use a whole number from 0 to 3"), "{mode}: {error}");
        }
        let unsized_ = read(json!({"width": null, "strength": 0.1, "denoising_strength": 0.9})).unwrap();
        assert_eq!((unsized_.fitting.fill, unsized_.input.strength), (None, Some(0.1)));
        let url = read(json!({"init_images": [], "image": "https://a/b.png"})).unwrap();
        assert_eq!((url.input.image.as_deref(), url.sent.is_empty()), (Some("https://a/b.png"), true));
        for (more, words) in [
            (json!({"init_images": []}), "is missing"),
            (json!({"init_images": [""]}), "is missing"),
            (json!({"init_images": [picture, picture]}), "2 pictures"),
            (json!({"init_images": picture, "image": "https://a/b.png"}), "2 pictures"),
            (json!({"init_images": 5}), "a picture as a text"),
            (json!({"mask": picture}), "leave `mask` out"),
            (json!({"denoising_strength": 1.5}), "`denoising_strength`: 1.5 is greater than the maximum of 1"),
            (json!({"strength": 1.5}), "`strength`: 1.5 is greater than the maximum of 1"),
        ] {
            let error = read(more.clone()).unwrap_err();
            assert!(error.contains(words), "{more}: {error}");
        }
    }

    #[test]
    fn names_of_this_api_become_inputs() {
        let asked = read(&json!({
            "prompt": "a", "negative_prompt": "b", "steps": 22, "cfg_scale": 4.5, "seed": -1, "width": 1000,
            "height": 520, "sampler_name": "DPM++ 2M", "scheduler": "Karras", "batch_size": 2, "n_iter": 3,
            "enable_hr": false, "override_settings": {"x": [1]}, "save_images": null,
        }))
        .unwrap();
        let input = &asked.input;
        assert_eq!((input.num_inference_steps, input.guidance_scale, input.width, input.height), (22, 4.5, 1024, 640));
        assert_eq!((input.num_outputs, asked.size, input.scheduler), (6, (1000, 520), Scheduler::DpmPp2m));
        assert_eq!(asked.wanted.crop, Some((1000, 520)));
        let plain = read(&json!({"prompt": "a", "sampler_name": "Euler a", "scheduler": "unipc", "seed": 5})).unwrap();
        assert_eq!((plain.size, plain.input.seed, plain.input.scheduler), ((2048, 512), 5, Scheduler::UniPc));
        let index = read(&json!({"sampler_index": "ddim", "width": 512})).unwrap();
        assert_eq!((index.size, index.input.prompt.as_str(), index.input.scheduler), ((512, 512), "", Scheduler::Ddim));
    }

    #[test]
    fn a_sampler_is_called_as_it_was_sent() {
        let wrong =
            || Invalid { field: "scheduler".to_owned(), message: "`scheduler`".to_owned(), kind: "value_error" };
        for (body, field) in [
            (json!({}), "sampler_name"),
            (json!({"sampler_name": "", "sampler_index": ""}), "sampler_name"),
            (json!({"sampler_index": "DDIM"}), "sampler_index"),
            (json!({"sampler_name": "DDIM", "sampler_index": "DDIM"}), "sampler_name"),
            (json!({"scheduler": "ddim", "sampler_index": "DDIM"}), "scheduler"),
        ] {
            let told = read(&body).unwrap().names.invalid(vec![wrong()]).remove(0);
            assert_eq!((told.field.as_str(), told.message), (field, format!("`{field}`")), "{body}");
        }
    }

    #[test]
    fn seeds_are_random_only_where_none_is_given() {
        let seed = |seed: Value| read(&json!({"seed": seed})).unwrap().input.seed;
        for (given, read) in [(json!(42), 42), (json!("42"), 42), (json!(" +7 "), 7), (json!(5.0), 5), (json!("0"), 0)]
        {
            assert_eq!(seed(given.clone()), read, "{given}");
        }
        for any in [Value::Null, json!(-1), json!("-1"), json!(-2.5)] {
            let drawn: std::collections::HashSet<u64> = (0..4).map(|_| seed(any.clone())).collect();
            assert!(drawn.len() > 1, "{any}");
        }
    }

    /// As pydantic does for the original.
    #[test]
    fn texts_are_numbers_where_numbers_are_expected() {
        let asked = read(&json!({
            "prompt": "7", "steps": "22", "cfg_scale": "4.5", "width": "1000", "height": "520", "batch_size": "2",
            "stride": 32.0,
        }));
        let Asked { input, size, .. } = asked.unwrap();
        assert_eq!((input.prompt.as_str(), input.num_inference_steps, input.guidance_scale), ("7", 22, 4.5));
        assert_eq!((input.width, input.height, size, input.num_outputs), (1024, 768, (1000, 520), 2));
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let read = Asked::read("\u{feff}{\"steps\": 3}".as_bytes(), Route::Txt2Img, None);
        assert_eq!(read.unwrap().input.num_inference_steps, 3);
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        for (body, words) in [
            (json!({"width": 256, "height": 256}), "`512x512`"),
            (json!({"batch_size": 4, "n_iter": 4}), "16 pictures"),
            (json!({"n_iter": 0}), "`n_iter`: use a whole number"),
            (json!({"steps": 500}), "`steps`: 500 is greater than the maximum of 200"),
            (json!({"num_inference_steps": 500}), "`num_inference_steps`: 500 is greater"),
            (json!({"steps": "many"}), "`steps`: \\\"many\\\" is not of type"),
            (json!({"steps": "2.5"}), "is not of type"),
            (json!({"cfg_scale": 30}), "`cfg_scale`: 30 is greater"),
            (json!({"cfg_scale": "inf"}), "`cfg_scale`"),
            (json!({"seed": u64::MAX, "n_iter": 2}), "for `n_iter` 2"),
            (json!({"seed": u64::MAX, "n_iter": 2, "batch_size": 1}), "for `batch_size` 2"),
            (json!({"image_left": 8}), "give an `image`"),
            (json!({"strength": 0.5}), "`strength`: it says"),
            (json!({"seed": true}), "`seed`: true is not of type"),
            (json!({"seed": []}), "`seed`: [] is not of type"),
            (json!({"seed": "any"}), "`seed`: \\\"any\\\" is not of type"),
            (json!({"seed": ""}), "`seed`: \\\"\\\" is not of type"),
            (json!({"seed": 4.5}), "`seed`: 4.5 is not of type"),
            (json!({"stride": 64.0, "width": 1152}), "`stride`: 64"),
            (json!({"batch_size": "some"}), "`batch_size`: use a whole number"),
            (json!({"width": "wide"}), "`width`"),
            (json!({"width": 1000, "loop_closure": true}), "`1024x512`"),
            (json!({"seed": u64::MAX, "batch_size": 2}), "`seed`"),
        ] {
            let error = read(&body).unwrap_err();
            assert!(error.contains(words), "{body}: {error}");
        }
        for body in ["", "[]", "{", "null"] {
            assert!(Asked::read(body.as_bytes(), Route::Txt2Img, None).is_err(), "{body}");
        }
    }
}
