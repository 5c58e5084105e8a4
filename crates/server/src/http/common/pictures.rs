//! Pictures in a body of JSON: texts, objects that have one, or lists of these.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The pictures of a value.
#[derive(Debug, Default)]
pub(crate) struct Pictures {
    /// The first: a URL, a data URI, or base64.
    pub(crate) first: Option<String>,
    /// How many there are.
    pub(crate) count: usize,
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
        Ok(if text.is_empty() { Pictures::default() } else { Pictures { first: Some(text.to_owned()), count: 1 } })
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
            ("\"a\"", Some("a"), 1),
            ("[\"a\",\"b\",null]", Some("a"), 2),
            (r#"[{"image_url":"a"}]"#, Some("a"), 1),
            (r#"{"image_url":{"url":"a","detail":"high"}}"#, Some("a"), 1),
            (r#"[{"file_id":"f"}]"#, None, 1),
        ] {
            let read: Pictures = serde_json::from_str(text).unwrap();
            assert_eq!((read.first.as_deref(), read.count), (first, count), "{text}");
        }
        for wrong in ["5", "[5]", "true"] {
            assert!(serde_json::from_str::<Pictures>(wrong).is_err(), "{wrong}");
        }
    }
}
