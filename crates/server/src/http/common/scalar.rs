//! One value of a request in bounded memory: a scalar, or that it is something else.

use std::fmt;

use prediction::outgoing::MAX_URL;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The longest text in bytes that is used for what it says.
pub(crate) const MAX_TEXT: usize = MAX_URL;

/// A value of JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Scalar {
    /// Null, or left out.
    #[default]
    Absent,
    Flag(bool),
    Whole(i64),
    /// A number that is not whole, or too large.
    Number(f64),
    Text(String),
    /// A list or an object.
    Other,
}

impl Scalar {
    /// The text; none if it is absent or empty, which forms of clients send for what was not filled in.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// The whole number, which may come as a text.
    pub(crate) fn whole(&self) -> Option<i64> {
        match self {
            Self::Whole(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// Whether it says nothing.
    pub(crate) fn is_absent(&self) -> bool {
        *self == Self::Absent || *self == Self::Text(String::new())
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Scalar;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Absent)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Flag(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar::Whole(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        Ok(i64::try_from(value).map_or(Scalar::Number(value as f64), Scalar::Whole))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
        // As in JSON Schema, `2.0` is whole.
        let whole = value.fract() == 0.0 && value.abs() < 2f64.powi(53);
        Ok(if whole { Scalar::Whole(value as i64) } else { Scalar::Number(value) })
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        // What is too long stays too long, so whoever uses it can tell.
        Ok(Scalar::Text(text[..text.ceil_char_boundary(MAX_TEXT + 1)].to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_read_in_bounded_memory() {
        let read = |text: &str| serde_json::from_str::<Scalar>(text).unwrap();
        for (text, value) in [
            ("null", Scalar::Absent),
            ("true", Scalar::Flag(true)),
            ("-3", Scalar::Whole(-3)),
            ("2.0", Scalar::Whole(2)),
            ("2.5", Scalar::Number(2.5)),
            ("18446744073709551615", Scalar::Number(u64::MAX as f64)),
            ("\"a\"", Scalar::Text("a".to_owned())),
            ("[1,{}]", Scalar::Other),
            ("{\"a\":[]}", Scalar::Other),
        ] {
            assert_eq!(read(text), value, "{text}");
        }
        for letter in ["x", "ü", "日", "🏔"] {
            let long = read(&format!("\"{}\"", letter.repeat(MAX_TEXT + 1)));
            let kept = long.text().unwrap().len();
            assert!((MAX_TEXT + 1..MAX_TEXT + 5).contains(&kept), "{letter}: {kept}");
        }
        for (text, whole) in [("2.0", Some(2)), ("\" -3\"", Some(-3)), ("2.5", None), ("\"2.5\"", None), ("true", None)]
        {
            assert_eq!(read(text).whole(), whole, "{text}");
        }
        assert!(read("\"\"").is_absent() && read("\"\"").text().is_none() && !read("0").is_absent());
    }
}
