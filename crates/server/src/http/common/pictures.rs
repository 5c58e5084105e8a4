//! Pictures in a body of JSON: texts, objects that have one, or lists of these.

use std::fmt;

use prediction::input::Sent;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// How many bytes are kept of a URL: more than the longest valid one has.
const MAX_URL: usize = 16 << 10;

/// The pictures of a value.
#[derive(Debug, Default)]
pub(crate) struct Pictures {
    /// The first.
    pub(crate) first: Option<Picture>,
    /// How many there are.
    pub(crate) count: usize,
}

/// A picture: a URL, or what a data URI or base64 contains.
#[derive(Debug)]
pub(crate) struct Picture {
    /// What the input says.
    pub(crate) value: String,
    pub(crate) sent: Sent,
}

impl Picture {
    /// Reads a text. It is not kept: that of a picture is long.
    fn read(text: &str) -> Self {
        let mut sent = Sent::default();
        let is = |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
        let value = if is("http://") || is("https://") {
            &text[..text.ceil_char_boundary(MAX_URL)]
        } else {
            sent.insert_text("image", text)
        };
        Self { value: value.to_owned(), sent }
    }

    /// Has `image` be this picture.
    pub(crate) fn put(self, inputs: &mut Map<String, Value>, to: &mut Sent) {
        inputs.insert("image".to_owned(), self.value.into());
        to.append(self.sent);
    }
}

impl Pictures {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.first = self.first.take().or(other.first);
    }
}

impl<'de> Deserialize<'de> for Pictures {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Pictures;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a picture as a text, or a list of them")
    }

    fn visit_unit<E>(self) -> Result<Pictures, E> {
        Ok(Pictures::default())
    }

    fn visit_str<E>(self, text: &str) -> Result<Pictures, E> {
        // Forms of clients send an empty text for what was not filled in.
        Ok(if text.is_empty() { Pictures::default() } else { Pictures { first: Some(Picture::read(text)), count: 1 } })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Pictures, A::Error> {
        let mut pictures = Pictures::default();
        while let Some(more) = seq.next_element::<Pictures>()? {
            pictures.add(more);
        }
        Ok(pictures)
    }

    /// `{"image_url": "..."}`, or `{"image_url": {"url": "..."}}`.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pictures, A::Error> {
        let mut pictures = Pictures::default();
        while let Some(key) = map.next_key::<String>()? {
            if matches!(key.as_str(), "image_url" | "url") {
                pictures.add(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        // One that is named in another way, such as by the id of a file, is one, too.
        pictures.count = pictures.count.max(1);
        Ok(pictures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_found_in_every_form() {
        for (text, first, count) in [
            ("null", None, 0),
            ("\"\"", None, 0),
            ("[]", None, 0),
            ("\"http://a\"", Some("http://a"), 1),
            ("[\"https://a\",\"b\",null]", Some("https://a"), 2),
            (r#"[{"image_url":"HTTP://a"}]"#, Some("HTTP://a"), 1),
            (r#"{"image_url":{"url":"http://a","detail":"high"}}"#, Some("http://a"), 1),
            ("\"data:image/png;base64,aGk=\"", Some("data:;base64,"), 1),
            ("[\"aGk=\"]", Some("data:;base64,"), 1),
            (r#"[{"file_id":"f"}]"#, None, 1),
        ] {
            let read: Pictures = serde_json::from_str(text).unwrap();
            assert_eq!((read.first.as_ref().map(|first| first.value.as_str()), read.count), (first, count), "{text}");
            let is_sent = read.first.is_some_and(|first| !first.sent.is_empty());
            assert_eq!(is_sent, first.is_some_and(|first| first.starts_with("data:")), "{text}");
        }
        for wrong in ["5", "[5]", "true"] {
            assert!(serde_json::from_str::<Pictures>(wrong).is_err(), "{wrong}");
        }
    }
}
