//! POST `/v1/images/edits`: a picture is drawn on, or drawn again. It comes as a file in a form, or in JSON.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use prediction::input::table::{self, Kind};
use prediction::input::{Given, Sent};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::create::{Read, create};
use super::errors::Fault;
use super::jobs::Jobs;
use super::options::Own;
use super::request::{Asked, json_object};
use super::route::Route;
use crate::http::common::form::{Part, boundary};
use crate::http::common::{Form, Picture, Pictures, Raw};
use crate::http::error::Error;
use crate::http::head::Head;
use crate::http::state::App;

/// Keys whose values are numbers or flags, besides those of inputs.
const TYPED: [&str; 4] = ["n", "output_compression", "partial_images", "stream"];
/// What a field has whose picture came as bytes.
const BYTES: &str = "data:;base64,";

pub(super) async fn edit(
    State(app): State<App>,
    Extension(jobs): Extension<Jobs>,
    head: Head,
    body: Raw,
) -> Result<Response, Fault> {
    app.service.readiness().map_err(Error::from)?;
    let boundary = boundary(&head.headers).transpose().map_err(|why| Fault::refused(None, "invalid_body", why))?;
    let (geometry, ours) = (app.service.geometry(), app.view.model.clone());
    let read = move |bytes: Vec<u8>| {
        let Some(boundary) = boundary else {
            let (own, given) = of_json(&bytes)?;
            return Ok(Read::json(&bytes, Asked::edit(&own, given, geometry, &ours)?));
        };
        let form = Form::read(bytes, &boundary).map_err(|why| {
            Fault::refused(None, "invalid_body", format!("the body is not `multipart/form-data`: {why}"))
        })?;
        let digest = form.digest();
        let (own, given) = of_form(form)?;
        Ok(Read { asked: Asked::edit(&own, given, geometry, &ours)?, digest })
    };
    let (read, room) = body.parse::<_, Fault>(read).await?;
    create(app, jobs, &head, Route::Edits, (read, room)).await
}

/// The keys of JSON that are pictures, or may not be.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    image: Pictures,
    images: Pictures,
    mask: Pictures,
    markup: Pictures,
}

impl Named {
    /// The picture.
    fn picture(self) -> Result<Picture, Fault> {
        for (name, pictures) in [("mask", &self.mask), ("markup", &self.markup)] {
            if pictures.count > 0 {
                return Err(no_parts(name));
            }
        }
        match self.image.count + self.images.count {
            0 => Err(missing()),
            1 => match self.image.first.or(self.images.first) {
                Some(picture) => Ok(picture),
                None => {
                    Err(Fault::invalid("images", "files are not kept here; send the picture as a data URI or a URL"))
                }
            },
            several => Err(too_many(several)),
        }
    }
}

/// A body of JSON.
fn of_json(bytes: &[u8]) -> Result<(Own, Given), Fault> {
    let bytes = json_object(bytes)?;
    let named: Named = parsed(bytes)?;
    let (mut own, mut given): (Own, Given) = (parsed(bytes)?, parsed(bytes)?);
    own.has_images = named.images.count > 0;
    let picture = named.picture()?;
    if let Value::Object(inputs) = &mut given.value {
        picture.put(inputs, &mut given.sent);
    }
    given.unknown.retain(|name| !matches!(name.as_str(), "images" | "mask" | "markup"));
    Ok((own, given))
}

fn parsed<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|error| {
        Fault::refused(None, "invalid_json", format!("the body is not a JSON object of this request: {error}"))
    })
}

/// A form: texts, and files of pictures.
fn of_form(form: Form) -> Result<(Own, Given), Fault> {
    let (mut values, mut sent, mut pictures) = (Map::new(), Sent::default(), 0);
    for Part { name, is_file, bytes } in form.parts {
        // `image[]`, `prompts[]`, `svg[model]`.
        let name = name.split('[').next().unwrap_or_default();
        if bytes.is_empty() && name != "prompt" && name != "negative_prompt" {
            continue;
        }
        let kind = table::find(name).map(|field| field.kind);
        if matches!(name, "mask" | "markup") {
            return Err(no_parts(name));
        }
        pictures += usize::from(name == "image");
        if is_file {
            if kind != Some(Kind::Picture) {
                return Err(Fault::invalid(name, format!("`{name}` is not a picture; send it as a text")));
            }
            sent.insert(name, bytes.into());
            values.insert(name.to_owned(), BYTES.into());
            continue;
        }
        let text =
            String::from_utf8(bytes.into()).map_err(|_| Fault::invalid(name, format!("`{name}` is not UTF-8")))?;
        let value = typed(name, text);
        let known = match values.get_mut(name) {
            Some(Value::Array(list)) => {
                list.push(value);
                continue;
            }
            known => known.is_some(),
        };
        if known && name != "image" {
            return Err(Fault::invalid(name, format!("`{name}` was sent more than once")));
        }
        let value = if matches!(kind, Some(Kind::Texts { .. })) { Value::Array(vec![value]) } else { value };
        values.insert(name.to_owned(), value);
    }
    match pictures {
        0 => return Err(missing()),
        1 => {}
        several => return Err(too_many(several)),
    }
    let values = Value::Object(values);
    let unread = |error: serde_json::Error| Fault::refused(None, "invalid_body", error.to_string());
    let own = Own::deserialize(&values).map_err(unread)?;
    let mut given = Given::deserialize(values).map_err(unread)?;
    // A picture that came as bytes is told from one whose data URI has none.
    given.sent.append(sent);
    Ok((own, given))
}

/// The text of a form as the type of its key.
fn typed(name: &str, text: String) -> Value {
    match table::find(name) {
        Some(field) => field.read(&text),
        None if TYPED.contains(&name) => match serde_json::from_str(&text.to_ascii_lowercase()) {
            Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
            _ => text.into(),
        },
        None => text.into(),
    }
}

fn missing() -> Fault {
    let message = "`image` is missing; send the picture that is to be drawn on";
    Fault::refused(Some("image"), "missing_required_parameter", message)
}

fn too_many(count: usize) -> Fault {
    Fault::invalid("image", format!("{count} pictures were sent; send one"))
}

fn no_parts(name: &str) -> Fault {
    let message = "parts of a picture cannot be marked: what is beside it is drawn, or all of it is drawn again, as far \
        as `strength` says";
    Fault::invalid(name, format!("{message}; leave `{name}` out"))
}

#[cfg(test)]
mod tests {
    use prediction::input::Geometry;
    use serde_json::json;

    use super::*;

    const FILE: (&str, bool, &[u8]) = ("image", true, b"\x89PNG");

    fn form(parts: &[(&str, bool, &[u8])]) -> Result<Asked, Value> {
        let part = |&(name, is_file, bytes): &(&str, bool, &[u8])| Part {
            name: name.to_owned(),
            is_file,
            bytes: bytes.to_vec().into(),
        };
        let read = of_form(Form { parts: parts.iter().map(part).collect() });
        asked(read)
    }

    fn asked(read: Result<(Own, Given), Fault>) -> Result<Asked, Value> {
        let ours = "owner/name".parse().unwrap();
        let asked = read.and_then(|(own, given)| Asked::edit(&own, given, Some(Geometry::default()), &ours));
        asked.map_err(|fault| fault.body()["error"].clone())
    }

    #[test]
    fn texts_of_a_form_become_what_their_keys_are() {
        let all: [(&str, bool, &[u8]); 14] = [
            ("prompt", false, b"7"),
            FILE,
            ("n", false, b"2"),
            ("size", false, b"1024x512"),
            ("seed", false, b"18446744073709551"),
            ("strength", false, b"0.5"),
            ("seamless", false, b"true"),
            ("stream", false, b"True"),
            ("partial_images", false, b"1"),
            ("prompts[]", false, b"a"),
            ("prompts[]", false, b"b"),
            ("user", false, b"5"),
            ("mask", true, b""),
            ("input_fidelity", false, b"high"),
        ];
        let asked = form(&all).unwrap();
        let input = &asked.input;
        assert_eq!((input.prompt.as_str(), input.seed, input.strength), ("7", 18_446_744_073_709_551, Some(0.5)));
        assert_eq!((input.num_outputs, input.seamless, asked.stream, asked.partial_images), (2, true, true, 1));
        assert_eq!(
            (input.prompts.as_slice(), asked.shape.asker.as_deref()),
            (&["a".to_owned(), "b".to_owned()][..], Some("5"))
        );
        assert!(input.image.is_some() && !asked.sent.is_empty() && asked.unknown.is_empty(), "{:?}", asked.unknown);
        assert!(asked.fitting.redraw.is_some());
        let url = form(&[("prompt", false, b"a"), ("image", false, b"https://a/b.png")]).unwrap();
        assert_eq!((url.input.image.as_deref(), url.sent.is_empty()), (Some("https://a/b.png"), true));
        let uri = form(&[("prompt", false, b"a"), ("image[]", false, b"data:image/png;base64,aGk=")]).unwrap();
        assert!(!uri.sent.is_empty());
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        let prompt: (&str, bool, &[u8]) = ("prompt", false, b"a");
        for (parts, param, words) in [
            (vec![prompt], "image", "is missing"),
            (vec![FILE], "prompt", "is missing"),
            (vec![prompt, ("image", true, b"")], "image", "is missing"),
            (vec![prompt, ("image[]", true, b"a"), ("image[]", true, b"b")], "image", "2 pictures"),
            (vec![prompt, FILE, ("mask", true, b"a")], "mask", "leave `mask` out"),
            (vec![prompt, FILE, ("markup", true, b"a")], "markup", "leave `markup` out"),
            (vec![prompt, FILE, ("user", true, b"a")], "user", "not a picture"),
            (vec![prompt, FILE, ("n", false, b"1"), ("n", false, b"1")], "n", "more than once"),
            (vec![prompt, FILE, ("n", false, b"many")], "n", "`many` is not a valid `n`"),
            (vec![prompt, FILE, ("stream", false, b"1")], "stream", "use `true`"),
            (vec![prompt, FILE, ("strength", false, b"2")], "strength", "greater than the maximum of 1"),
            (vec![prompt, FILE, ("svg[model]", false, b"x")], "svg", "no vector graphics"),
            (vec![prompt, FILE, ("user", false, b"\xff")], "user", "not UTF-8"),
        ] {
            let error = form(&parts).unwrap_err();
            assert_eq!(error["param"], json!(param), "{error}");
            assert!(error["message"].as_str().unwrap().contains(words), "{error}");
        }
    }

    #[test]
    fn pictures_in_json_have_several_forms() {
        let uri = "data:image/png;base64,aGk=";
        for image in [
            json!({"image": uri}),
            json!({"image": [uri]}),
            json!({"images": [{"image_url": uri}], "mask": null}),
            json!({"images": [{"image_url": {"url": uri}}], "image": null}),
        ] {
            let mut body = image.clone();
            body["prompt"] = "a".into();
            let asked = asked(of_json(body.to_string().as_bytes())).unwrap();
            assert!(asked.input.image.is_some() && !asked.sent.is_empty() && asked.unknown.is_empty(), "{image}");
        }
        for (body, param) in [
            (json!({"prompt": "a"}), json!("image")),
            (json!({"prompt": "a", "images": [uri, uri]}), json!("image")),
            (json!({"prompt": "a", "image": uri, "images": [uri]}), json!("image")),
            (json!({"prompt": "a", "images": [{"file_id": "f"}]}), json!("images")),
            (json!({"prompt": "a", "image": uri, "mask": {"image_url": uri}}), json!("mask")),
            (json!({"prompt": "a", "image": 5}), Value::Null),
            (json!([]), Value::Null),
        ] {
            assert_eq!(asked(of_json(body.to_string().as_bytes())).unwrap_err()["param"], param, "{body}");
        }
    }
}
