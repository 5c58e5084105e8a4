//! The document as YAML.

use std::fmt::Write as _;

use serde_json::{Map, Value};

pub(super) fn write(document: &Value) -> String {
    let mut text = String::from("# Written by `make docs`; a test keeps it equal to what /openapi.json serves.\n");
    entries(&mut text, document, 0);
    text
}

/// Writes a mapping or a sequence, one entry a line; scalars are JSON, which YAML reads.
fn entries(text: &mut String, value: &Value, depth: usize) {
    let list: Vec<(String, &Value)> = match value {
        Value::Object(map) => {
            map.iter().map(|(key, value)| (format!("{}:", Value::from(key.as_str())), value)).collect()
        }
        Value::Array(list) => list.iter().map(|value| ("-".to_owned(), value)).collect(),
        _ => Vec::new(),
    };
    for (lead, value) in list {
        let _ = write!(text, "{:depth$}{lead}", "");
        let empty = value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
        if (value.is_object() || value.is_array()) && !empty {
            text.push('\n');
            entries(text, value, depth + 2);
        } else {
            let _ = writeln!(text, " {value}");
        }
    }
}
