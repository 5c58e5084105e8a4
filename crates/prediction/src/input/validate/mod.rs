//! JSON to [`Input`], with all errors at once, in the shape and the words of Cog 0.23.
//!
//! Order of the errors: fields by name, then what is missing. Numbers follow JSON Schema: `1024.0` and `1e3` are
//! integers. Unknown keys are stripped and reported; the caller warns of them.

mod conflicts;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;

use geometry::Geometry;
use protocol::Input;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::input::table::{self, Field, Kind, TABLE};
use crate::input::{data_uri, fitted};
use crate::outgoing::MAX_URL;
use crate::shown::shown_up_to;

/// The longest text in bytes. Two of them and several short ones, each character escaped, fit into a frame.
pub(super) const MAX_TEXT: usize = 1 << 20;
/// The bytes of several texts together.
pub(super) const MAX_TEXTS: usize = 1 << 18;
/// How many characters of a value a message repeats.
const MAX_VALUE: usize = 100;
const _: () = assert!(6 * (2 * MAX_TEXT + MAX_TEXTS) < protocol::frame::MAX_LINE);

/// One reason why a JSON value is not a valid input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The field, or `__root__` for the whole.
    pub field: String,
    /// What is wrong, and what is valid.
    pub message: String,
    /// `value_error` or `value_error.missing`.
    pub kind: &'static str,
}

impl Invalid {
    fn new(field: &str, message: impl Into<String>) -> Self {
        Self { field: field.to_owned(), message: message.into(), kind: "value_error" }
    }

    /// The error as an entry of the `detail` of a 422.
    pub fn detail(&self) -> Detail {
        Detail {
            loc: vec!["body".to_owned(), "input".to_owned(), self.field.clone()],
            msg: self.message.clone(),
            kind: self.kind.to_owned(),
        }
    }
}

/// An entry of the `detail` of a 422, as Cog writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Detail {
    /// Where: `body`, then keys.
    pub loc: Vec<String>,
    /// What is wrong.
    pub msg: String,
    /// The class of the error.
    #[serde(rename = "type")]
    pub kind: String,
}

/// An input, and the keys that were dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The input, defaults filled in.
    pub input: Input,
    /// Keys that are not in the table.
    pub stripped: Vec<String>,
}

/// Parses the `input` of a request; `null` is an empty object.
///
/// Without a geometry, only what does not depend on the model is checked.
///
/// # Errors
/// All reasons at once.
pub fn parse(value: &Value, geometry: Option<Geometry>) -> Result<Parsed, Vec<Invalid>> {
    let empty = Map::new();
    let given = match value {
        Value::Null => &empty,
        Value::Object(given) => given,
        other => return Err(vec![Invalid::new("__root__", format!("{} is not of type \"object\"", short(other)))]),
    };
    let mut errors = BTreeMap::new();
    let mut missing = Vec::new();
    let mut whole = BTreeMap::new();
    let mut values = Map::new();
    let fast = given.get("preset").is_some_and(|preset| preset == "fast");
    let stride = match given.get("stride") {
        None if fast => table::fast("stride"),
        stride => stride.cloned(),
    };
    let stride = stride.as_ref().and_then(integer).and_then(|stride| u64::try_from(stride).ok());
    let fitted = geometry.map_or(TABLE, |geometry| fitted::table(geometry, stride));
    let left_out = |field: &Field, default: table::Default| match field.name {
        // Fitted to the model, whoever says it.
        "stride" if geometry.is_some() => default.value(),
        name => implied(name, given).or_else(|| default.value()),
    };
    for (field, Field { default, .. }) in TABLE.iter().zip(fitted) {
        match given.get(field.name).cloned().or_else(|| left_out(field, default)) {
            None => missing.push(Invalid {
                field: field.name.to_owned(),
                message: "Field required".to_owned(),
                kind: "value_error.missing",
            }),
            Some(Value::Null) if field.default == table::Default::Nothing => {}
            Some(value) => match check(field, &value) {
                Err(messages) => {
                    errors.insert(field.name, messages);
                }
                Ok(normal) => {
                    if let Some(number) = integer(&normal) {
                        whole.insert(field.name, number);
                    }
                    values.insert(field.name.to_owned(), normal);
                }
            },
        }
    }
    values.remove("preset");
    let looped = values.get("loop_closure") == Some(&Value::Bool(true));
    for (field, message) in conflicts::of(&values).into_iter().chain(rules(&whole, looped, geometry)) {
        let by_preset = fast && matches!(field, "width" | "height" | "stride") && !given.contains_key("stride");
        let message = if by_preset {
            format!("{message}; the `preset` \"fast\" sets the stride, unless you give a `stride`")
        } else {
            message
        };
        errors.entry(field).or_insert(vec![message]);
    }
    if errors.is_empty() && missing.is_empty() {
        let input = serde_json::from_value(Value::Object(values))
            .map_err(|error| vec![Invalid::new("__root__", error.to_string())])?;
        let stripped = given.keys().filter(|key| table::find(key).is_none()).cloned().collect();
        return Ok(Parsed { input, stripped });
    }
    let named = errors
        .into_iter()
        .flat_map(|(field, messages)| messages.into_iter().map(move |message| Invalid::new(field, message)));
    Err(named.chain(missing).collect())
}

/// What an input is if it is left out, where that depends on the others that are given.
fn implied(name: &str, given: &Map<String, Value>) -> Option<Value> {
    let shows_borders =
        given.get("seamless") == Some(&Value::Bool(true)) || given.get("image").is_some_and(|image| !image.is_null());
    if name == "blend" && shows_borders {
        return Some("smooth".into());
    }
    given.get("preset").filter(|preset| *preset == "fast").and_then(|_| table::fast(name))
}

/// Checks a finished input against the geometry of a model, which may be known only later.
///
/// # Errors
/// All reasons at once.
pub fn check_geometry(input: &Input, geometry: Geometry) -> Result<(), Vec<Invalid>> {
    let whole = BTreeMap::from([
        ("height", i128::from(input.height)),
        ("stride", i128::from(input.stride)),
        ("width", i128::from(input.width)),
    ]);
    let errors = rules(&whole, input.loop_closure, Some(geometry));
    if errors.is_empty() {
        return Ok(());
    }
    Err(errors.into_iter().map(|(field, message)| Invalid::new(field, message)).collect())
}

/// Type and bounds of one value, all that is wrong with it in the order of the schema's keywords: maximum, minimum,
/// type. Integers come out as JSON integers.
fn check(field: &Field, value: &Value) -> Result<Value, Vec<String>> {
    let wrong_type = || format!("{} is not of type \"{}\"", short(value), field.kind.name());
    let above = |maximum: &dyn Display| format!("{value} is greater than the maximum of {maximum}");
    let below = |minimum: &dyn Display| format!("{value} is less than the minimum of {minimum}");
    match field.kind {
        Kind::Text => match value.as_str() {
            None => Err(vec![wrong_type()]),
            Some(text) if text.len() > MAX_TEXT => {
                Err(vec![format!("the text is longer than the maximum of {MAX_TEXT} bytes")])
            }
            Some(_) => Ok(value.clone()),
        },
        Kind::Texts { minimum, maximum } => texts(field.name, value, minimum..=maximum).map_err(|error| vec![error]),
        Kind::Picture => match value.as_str() {
            None => Err(vec![wrong_type()]),
            Some(text) => picture(text).map(Value::from).map_err(|error| vec![error]),
        },
        Kind::Boolean => value.is_boolean().then(|| value.clone()).ok_or_else(|| vec![wrong_type()]),
        Kind::Choice(words) if value.as_str().is_some_and(|word| words.contains(&word)) => Ok(value.clone()),
        Kind::Choice(words) => Err(vec![format!("{} is not one of {}", short(value), alternatives(words))]),
        Kind::Number { minimum, maximum } => match value.as_f64() {
            None => Err(vec![wrong_type()]),
            Some(number) if number > maximum => Err(vec![above(&maximum)]),
            Some(number) if number < minimum => Err(vec![below(&minimum)]),
            Some(number) => Ok(Value::from(number)),
        },
        Kind::Integer { minimum, maximum } => {
            let Some(number) = integer(value) else {
                let outside = value.as_f64().and_then(|number| match (minimum, maximum) {
                    (_, Some(maximum)) if number > maximum as f64 => Some(above(&maximum)),
                    (Some(minimum), _) if number < minimum as f64 => Some(below(&minimum)),
                    _ => None,
                });
                return Err(outside.into_iter().chain([wrong_type()]).collect());
            };
            let maximum = maximum.unwrap_or(u64::MAX);
            let minimum = minimum.map_or(i128::from(i64::MIN), i128::from);
            if number > i128::from(maximum) {
                Err(vec![above(&maximum)])
            } else if number < minimum {
                Err(vec![below(&minimum)])
            } else {
                Ok(u64::try_from(number).map_or_else(|_| Value::from(number as i64), Value::from))
            }
        }
    }
}

/// Checks several texts.
fn texts(name: &str, value: &Value, count: RangeInclusive<usize>) -> Result<Value, String> {
    let Some(texts) = value.as_array() else { return Err(format!("{} is not of type \"array\"", short(value))) };
    if let Some(other) = texts.iter().find(|text| !text.is_string()) {
        return Err(format!("{} in `{name}` is not of type \"string\"", short(other)));
    }
    let (least, most) = (count.start(), count.end());
    match texts.len() {
        0 => {}
        1 => {
            return Err(format!("one text leads nowhere; give {least} to {most} in `{name}`, or this one as `prompt`"));
        }
        more if more > *most => return Err(format!("`{name}` has more than {most} texts; give {least} to {most}")),
        _ => {}
    }
    if let Some(at) = texts.iter().position(|text| text.as_str().is_some_and(|text| text.trim().is_empty())) {
        return Err(format!("text {} of `{name}` is empty; say what is there, or leave it out", at + 1));
    }
    if texts.iter().filter_map(Value::as_str).map(str::len).sum::<usize>() > MAX_TEXTS {
        return Err(format!("the texts are longer than the maximum of {MAX_TEXTS} bytes together"));
    }
    Ok(value.clone())
}

/// Checks what is said of a picture. Of a data URI only the head is kept: its data travels beside the input.
fn picture(text: &str) -> Result<&str, String> {
    if let Some(head) = data_uri::head(text) {
        return Ok(head);
    }
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    if !matches!(scheme.as_deref(), Some("http" | "https")) {
        return Err(format!(
            "{} is not the URL of a picture; write one such as `https://example.com/picture.jpg`, or a data URI \
             (`data:image/jpeg;base64,…`)",
            short(&text.into())
        ));
    }
    if text.len() > MAX_URL {
        return Err(format!("the URL is longer than the maximum of {MAX_URL} bytes"));
    }
    Ok(text)
}

/// The words of a choice as a message lists them.
fn alternatives(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.as_slice() {
        [init @ .., last] if !init.is_empty() => format!("{} or {last}", init.join(", ")),
        few => few.concat(),
    }
}

/// A value as a message repeats it.
fn short(value: &Value) -> String {
    // Cut before it becomes JSON, too, which takes six times the room at worst.
    let text = match value {
        Value::String(text) if text.len() > MAX_VALUE => {
            Value::from(&text[..text.floor_char_boundary(4 * MAX_VALUE)]).to_string()
        }
        other => other.to_string(),
    };
    shown_up_to(&text, MAX_VALUE).to_string()
}

/// The whole number that a value is, as JSON Schema defines it: `2.0` is one.
pub fn integer(value: &Value) -> Option<i128> {
    let number = value.as_number()?;
    let whole = |float: f64| (float.fract() == 0.0).then_some(float as i128);
    number
        .as_u64()
        .map(i128::from)
        .or_else(|| number.as_i64().map(i128::from))
        .or_else(|| number.as_f64().and_then(whole))
}

/// What the algorithm requires beyond the table, checked for the integers that passed it.
fn rules(
    whole: &BTreeMap<&'static str, i128>,
    looped: bool,
    geometry: Option<Geometry>,
) -> BTreeMap<&'static str, String> {
    let mut errors = BTreeMap::new();
    if let Some(freq) = whole.get("sync_freq").filter(|&&freq| freq < 1) {
        errors.insert("sync_freq", format!("{freq} is less than the minimum of 1"));
    }
    if let (Some(&seed), Some(&count)) = (whole.get("seed"), whole.get("num_outputs"))
        && seed + count - 1 > i128::from(u64::MAX)
    {
        let most = i128::from(u64::MAX) - (count - 1);
        let message = format!("{seed} leaves too few seeds after it for `num_outputs` {count}; use {most} at most");
        errors.insert("seed", message);
    }
    let Some(geometry) = geometry else { return errors };
    let mut usable = None;
    if let Some(&stride) = whole.get("stride") {
        match geometry.check_stride(stride) {
            Ok(stride) => usable = Some(stride),
            Err(error) => _ = errors.insert("stride", error.to_string()),
        }
    }
    for side in ["width", "height"] {
        let (Some(&size), Some(Kind::Integer { minimum: Some(minimum), maximum: Some(maximum) })) =
            (whole.get(side), table::find(side).map(|field| field.kind))
        else {
            continue;
        };
        let looped = if looped && side == "height" { geometry.check_looped_height(size) } else { Ok(()) };
        if let Err(error) = looped.and_then(|()| geometry.check_size(size, usable, &(minimum..=maximum))) {
            errors.insert(side, error.to_string());
        }
    }
    errors
}

#[cfg(test)]
mod tests;
