//! The `input` of a request as it is read from JSON: what the table names is kept, the rest is skipped.
//!
//! A tree of JSON takes up to a hundred times the memory of its text. So only scalars of known names are kept whole (a
//! text up to the longest valid one), and of anything else the beginning, which is enough for a message.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::data_uri;
use super::table::{self, Kind, MAX_PROMPTS};
use super::validate::{MAX_TEXT, MAX_TEXTS};
use crate::outgoing::MAX_URL;

/// How many unknown names are kept for the log.
const MAX_NAMES: usize = 16;
/// How many characters of an unknown name are kept.
const MAX_NAME: usize = 64;
/// How many values inside a value are kept. Each is at least one character of a message, which shows 100.
const MAX_NODES: usize = 128;
/// How many bytes are kept of a text where a text is not valid.
const MAX_WRONG: usize = 512;

/// What a request gives as `input`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// The values of known names, for [`super::parse`]. Of a data URI it is the head.
    pub value: Value,
    /// The first unknown names, cut.
    pub unknown: Vec<String>,
    /// What data URIs contain.
    pub sent: Sent,
}

/// The pictures that came with a request, by field: their bytes, or why there are none.
#[derive(Clone, Default, PartialEq)]
pub struct Sent(BTreeMap<String, Result<Vec<u8>, String>>);

impl fmt::Debug for Sent {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_map().entries(self.0.iter().map(|(field, bytes)| (field, bytes.as_ref().map(Vec::len)))).finish()
    }
}

impl Sent {
    /// Adds the bytes of a picture, whatever the input says in its field.
    pub fn insert(&mut self, field: &str, bytes: Vec<u8>) {
        self.0.insert(field.to_owned(), Ok(bytes));
    }

    /// Adds what a data URI or base64 contains, or why it contains nothing. Returns what the input says then.
    pub fn insert_text(&mut self, field: &str, text: &str) -> &'static str {
        let bytes = if data_uri::head(text).is_some() { data_uri::data(text) } else { data_uri::decoded(text) };
        self.0.insert(field.to_owned(), bytes);
        data_uri::SHORT
    }

    /// Adds what came otherwise; it replaces what came in the same fields.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Takes what came in a field, if anything did.
    pub(crate) fn take(&mut self, field: &str) -> Option<Result<Vec<u8>, String>> {
        self.0.remove(field)
    }

    /// Whether nothing came.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Given;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("any valid JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given, A::Error> {
        let (mut values, mut unknown, mut sent) = (Map::new(), Vec::new(), Sent::default());
        while let Some(Name { known, shown }) = map.next_key()? {
            if let Some(field) = known {
                let (mut nodes, mut data) = (MAX_NODES, None);
                let short = Short::of(&mut nodes);
                let short = match field.kind {
                    Kind::Text => Short { text: MAX_TEXT + 1, ..short },
                    Kind::Texts { .. } => Short { items: MAX_TEXTS + 1, ..short },
                    Kind::Picture => Short { text: MAX_URL + 1, data: Some(&mut data), ..short },
                    _ => short,
                };
                values.insert(field.name.to_owned(), map.next_value_seed(short)?);
                match data {
                    Some(data) => _ = sent.0.insert(field.name.to_owned(), data),
                    // The last of several wins.
                    None => _ = sent.0.remove(field.name),
                }
            } else {
                map.next_value::<IgnoredAny>()?;
                if unknown.len() < MAX_NAMES && !unknown.contains(&shown) {
                    unknown.push(shown);
                }
            }
        }
        unknown.sort();
        Ok(Given { value: Value::Object(values), unknown, sent })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Given, A::Error> {
        Short::of(&mut { MAX_NODES }).visit_seq(seq).map(whole)
    }

    fn visit_str<E>(self, text: &str) -> Result<Given, E> {
        Ok(whole(cut(text, MAX_WRONG).into()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Given, E> {
        Ok(whole(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Given, E> {
        Ok(whole(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Given, E> {
        Ok(whole(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Given, E> {
        Ok(whole(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Given, E> {
        Ok(Given::default())
    }
}

fn whole(value: Value) -> Given {
    Given { value, ..Given::default() }
}

/// The beginning of a text, of that many bytes or a little more, so that one that is too long stays too long.
fn cut(text: &str, limit: usize) -> &str {
    &text[..text.ceil_char_boundary(limit)]
}

/// A name of an input.
struct Name {
    known: Option<&'static table::Field>,
    shown: String,
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Name;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a string")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                let known = table::find(name);
                let shown = if known.is_some() { String::new() } else { name.chars().take(MAX_NAME).collect() };
                Ok(Name { known, shown })
            }
        }
        from.deserialize_str(Reader)
    }
}

/// Reads the beginning of a value and skips the rest.
struct Short<'a> {
    nodes: &'a mut usize,
    /// How many bytes of a text.
    text: usize,
    /// How many bytes of a text in a list.
    items: usize,
    /// Where the data of a data URI goes.
    data: Option<&'a mut Option<Result<Vec<u8>, String>>>,
}

impl<'a> Short<'a> {
    /// Reads up to a number of values, and little of each.
    fn of(nodes: &'a mut usize) -> Self {
        Self { nodes, text: MAX_WRONG, items: MAX_WRONG, data: None }
    }
}

impl<'de> DeserializeSeed<'de> for Short<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Short<'_> {
    type Value = Value;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("any valid JSON value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        if self.items > MAX_WRONG {
            // One more than is valid.
            *self.nodes = MAX_PROMPTS + 1;
        }
        loop {
            if *self.nodes == 0 {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(Value::Array(values));
            }
            *self.nodes -= 1;
            match seq.next_element_seed(Short { text: self.items, ..Short::of(self.nodes) })? {
                Some(value) => values.push(value),
                None => return Ok(Value::Array(values)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        loop {
            if *self.nodes == 0 {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return Ok(Value::Object(values));
            }
            *self.nodes -= 1;
            let Some(Name { known, shown }) = map.next_key()? else { return Ok(Value::Object(values)) };
            let name = known.map_or(shown, |field| field.name.to_owned());
            values.insert(name, map.next_value_seed(Short::of(self.nodes))?);
        }
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        if let Some(into) = self.data
            && let Some(head) = data_uri::head(text)
        {
            *into = Some(data_uri::data(text));
            return Ok(head.into());
        }
        Ok(cut(text, self.text).into())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Given {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_the_table_names_is_kept_whole() {
        let given = read(r#"{"prompt":"a\nü","seed":18446744073709551615,"guidance_scale":7.5,"loop_closure":true}"#);
        assert_eq!(
            given.value,
            json!({"prompt": "a\nü", "seed": u64::MAX, "guidance_scale": 7.5, "loop_closure": true})
        );
        assert_eq!(read(r#"{"seed":-1,"width":null}"#).value, json!({"seed": -1, "width": null}));
        assert_eq!(read(r#"{"width":1,"width":2}"#).value, json!({"width": 2}));
        for other in ["null", "[1,2]", "5", "-5", "0.5", "true", "\"str\""] {
            assert_eq!(read(other).value, serde_json::from_str::<Value>(other).unwrap());
        }
    }

    #[test]
    fn the_rest_is_skipped_and_named_shortly() {
        let entry = |i: u32| format!(r#""k{i:04}{}":[{{"":0}},{i}],"#, "x".repeat(1000));
        let many = (0..1000).map(entry).collect::<Vec<_>>().concat();
        let given = read(&format!(r#"{{{many}"prompt":"a"}}"#));
        assert_eq!(given.value, json!({"prompt": "a"}));
        assert_eq!(given.unknown.len(), MAX_NAMES);
        assert!(given.unknown.iter().all(|name| name.len() <= MAX_NAME) && given.unknown[0].starts_with("k0000x"));
    }

    #[test]
    fn data_of_pictures_leaves_the_input() {
        let given = read(r#"{"image":"data:image\/png;base64,aGk=","anchor_image":"https://a/b","prompts":["a","b"]}"#);
        let value = json!({"image": "data:image/png;base64,", "anchor_image": "https://a/b", "prompts": ["a", "b"]});
        assert_eq!(given.value, value);
        let mut sent = given.sent;
        assert_eq!(
            (sent.take("image"), sent.take("anchor_image"), sent.is_empty()),
            (Some(Ok(b"hi".into())), None, true)
        );
        assert!(matches!(read(r#"{"image":"data:,hi"}"#).sent.take("image"), Some(Err(_))));
        assert!(read(r#"{"image":"data:;base64,aGk=","image":"http://a"}"#).sent.is_empty());
        assert!(read(r#"{"prompt":"data:;base64,aGk=","image":["data:;base64,aGk="]}"#).sent.is_empty());
        let secret = format!("{:?}", read(r#"{"image":"data:;base64,aGk="}"#));
        assert!(secret.contains("\"image\": Ok(2)") || secret.contains("\"image\":Ok(2)"), "{secret}");
    }

    #[test]
    fn of_several_texts_one_more_than_is_valid_is_kept() {
        let long = "x".repeat(MAX_WRONG + 1);
        let given = read(&json!({ "prompts": vec![&long; 100] }).to_string());
        assert_eq!(given.value, json!({ "prompts": vec![&long; MAX_PROMPTS + 1] }));
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_kept_in_part() {
        let zeros = format!("[{}0]", "0,".repeat(100_000));
        let maps = format!("[{}0]", r#"{"":[{"a":{}}]},"#.repeat(100_000));
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        let text = format!("\"{}\"", "y".repeat(1 << 20));
        for long in [zeros, maps, deep, text] {
            for body in [format!(r#"{{"width":{long}}}"#), format!(r#"{{"prompt":{long}}}"#), long.clone()] {
                let kept = read(&body).value.to_string().len();
                assert!(kept < 2000 || body.starts_with("{\"prompt\":\"y"), "{kept} bytes of {}", &body[..20]);
            }
        }
        assert!(read(&format!(r#"{{"width":[{}0]}}"#, "0,".repeat(1000))).value.to_string().len() > 100);
        for (field, limit) in [("prompt", MAX_TEXT), ("image", MAX_URL)] {
            let long = read(&format!(r#"{{"{field}":"{}"}}"#, "日".repeat(limit)));
            let kept = long.value[field].as_str().unwrap().len();
            assert!((limit + 1..limit + 4).contains(&kept), "{field}: {kept}, which is still refused");
        }
    }
}
