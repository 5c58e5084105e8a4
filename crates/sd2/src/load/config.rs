//! Strict reading of the configuration files of a bundle.
//!
//! Every key is supported, known to have no effect on what this crate computes, or a problem. Problems are collected,
//! so that one error lists everything that is wrong with a file.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::bundle::Bundle;
use super::error::{Error, Result};
use super::problem;

/// Keys that say who wrote a file, and keys that say how a network was trained and not what it is: those of its moving
/// average, which diffusers writes into the configuration of the averaged network. Keys that begin with `_` are
/// private.
const BOOKKEEPING: [&str; 12] = [
    "architectures",
    "transformers_version",
    "model_type",
    "decay",
    "inv_gamma",
    "min_decay",
    "optimization_step",
    "power",
    "update_after_step",
    "use_ema_warmup",
    "gradient_checkpointing",
    "use_gradient_checkpointing",
];

/// One configuration file, consumed key by key.
pub(crate) struct Config {
    file: String,
    keys: Map<String, Value>,
    problems: Vec<String>,
}

impl Config {
    /// Reads `file` of the bundle. The class it names, if any, must be one of `classes`.
    pub(crate) fn read(bundle: &Bundle, file: &str, classes: &[&str]) -> Result<Self> {
        let (mut config, class) = Self::read_any(bundle, file)?;
        if let Some(class) = class
            && !classes.contains(&class.as_str())
        {
            config.problem(format!("`_class_name` is `{class}`; supported: `{}`", classes.join("`, `")));
        }
        Ok(config)
    }

    /// Reads `file` of the bundle, and the class it names.
    pub(crate) fn read_any(bundle: &Bundle, file: &str) -> Result<(Self, Option<String>)> {
        let keys = problem::json(file, &with_least_number(&bundle.read(file)?))?;
        let mut config = Self { file: file.to_owned(), keys, problems: Vec::new() };
        let class = config.take("_class_name");
        Ok((config, class))
    }

    /// Goes on with what is under a key, if that is an object.
    pub(crate) fn descend(&mut self, key: &str) {
        if let Some(Value::Object(inner)) = self.keys.remove(key) {
            self.keys = inner;
        }
    }

    /// Drops keys that other classes read, and says which.
    pub(crate) fn drop_foreign(&mut self, keys: &[&str]) -> Vec<String> {
        let foreign: Vec<&str> = keys.iter().copied().filter(|key| self.keys.contains_key(*key)).collect();
        foreign.into_iter().filter_map(|key| self.keys.remove_entry(key)).map(|(key, _)| key).collect()
    }

    /// The value of a key; `None` where it is absent or null.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let value = self.keys.remove(key).filter(|value| !value.is_null())?;
        match serde_json::from_value(value.clone()) {
            Ok(value) => Some(value),
            Err(e) => {
                self.problem(format!("`{key}` is `{value}`: {e}"));
                None
            }
        }
    }

    /// The value of a key, or its default.
    pub(crate) fn or<T: DeserializeOwned>(&mut self, key: &str, default: T) -> T {
        self.take(key).unwrap_or(default)
    }

    /// The value of a required key.
    pub(crate) fn need<T: DeserializeOwned + Default>(&mut self, key: &str) -> T {
        if self.keys.get(key).is_none_or(Value::is_null) {
            self.problem(format!("`{key}` is missing"));
        }
        self.take(key).unwrap_or_default()
    }

    /// A positive number, required unless it has a default.
    pub(crate) fn size(&mut self, key: &str, default: Option<i64>) -> i64 {
        let value = match default {
            Some(default) => self.or(key, default),
            None => self.need(key),
        };
        if value < 1 && !self.problems.iter().any(|p| p.starts_with(&format!("`{key}`"))) {
            self.problem(format!("`{key}` is `{value}`, not a positive number"));
        }
        value.max(1)
    }

    /// The side of a square that must be there: a positive number, or two equal ones.
    pub(crate) fn side(&mut self, key: &str) -> i64 {
        if let Some(Value::Array(sides)) = self.keys.get(key) {
            let side = match &sides[..] {
                [height, width] if height == width => height.clone(),
                _ => {
                    self.problem(format!("`{key}` is `{}`, but windows are square", Value::from(sides.clone())));
                    Value::from(1)
                }
            };
            self.keys.insert(key.to_owned(), side);
        }
        self.size(key, None)
    }

    /// A list of `n` positive numbers. A single number stands for `n` of it.
    pub(crate) fn sizes(&mut self, key: &str, n: usize, default: Option<i64>) -> Vec<i64> {
        let sizes = match (self.take::<Value>(key), default) {
            (None, None) => {
                self.problem(format!("`{key}` is missing"));
                return vec![1; n];
            }
            (None, Some(default)) => return vec![default; n],
            (Some(Value::Array(list)), _) => list,
            (Some(one), _) => vec![one; n],
        };
        let numbers: Vec<i64> = sizes.iter().filter_map(Value::as_i64).filter(|&size| size > 0).collect();
        if numbers.len() != n || sizes.len() != n {
            self.problem(format!("`{key}` is `{}`, not {n} positive numbers", Value::from(sizes)));
            return vec![1; n];
        }
        numbers
    }

    /// A key with a single supported value, which is also its default.
    pub(crate) fn only(&mut self, key: &str, supported: impl Into<Value>) {
        let supported = supported.into();
        match self.keys.remove(key) {
            None => {}
            Some(value) if value == supported => {}
            Some(value) if value.as_f64().is_some() && value.as_f64() == supported.as_f64() => {}
            Some(value) => self.problem(format!("`{key}` is `{value}`; supported: `{supported}`")),
        }
    }

    /// Keys of which only null is supported.
    pub(crate) fn none(&mut self, keys: &[&str]) {
        for key in keys {
            self.only(key, Value::Null);
        }
    }

    /// Keys that have no effect on what is computed here.
    pub(crate) fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.keys.remove(*key);
        }
    }

    /// Adds a problem.
    pub(crate) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// Ends the reading of some keys of a file that is read as a whole elsewhere.
    pub(crate) fn end(self) -> Result<()> {
        if self.problems.is_empty() { Ok(()) } else { Err(Error::Config { file: self.file, problems: self.problems }) }
    }

    /// Whether a key has this value.
    pub(crate) fn is(&self, key: &str, value: &str) -> bool {
        self.keys.get(key).is_some_and(|found| found == value)
    }

    /// Ends the reading with one problem, where others would only follow from it.
    pub(crate) fn refuse(self, problem: String) -> Error {
        Error::Config { file: self.file, problems: vec![problem] }
    }

    /// Ends the reading: keys that were not consumed are not supported.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.ignore(&BOOKKEEPING);
        // A null asks for nothing.
        let asked = |key: &str, value: &Value| !key.starts_with('_') && !value.is_null();
        for (key, value) in self.keys.iter().filter(|(key, value)| asked(key, value)) {
            self.problems.push(format!("`{key}` is not a supported key (its value is `{value}`)"));
        }
        self.end()
    }
}

/// JSON with a number where Python wrote `-Infinity`, as diffusers does for `lambda_min_clipped`.
fn with_least_number(json: &[u8]) -> Cow<'_, [u8]> {
    const WORD: &str = "-Infinity";
    match str::from_utf8(json) {
        Ok(text) if text.contains(WORD) => text.replace(WORD, "-1e308").into_bytes().into(),
        _ => json.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &'static str) -> Config {
        let files: &'static [(&'static str, &'static [u8])] = Box::leak(Box::new([("c.json", json.as_bytes())]));
        Config::read(&Bundle::embedded(files), "c.json", &["Net"]).unwrap()
    }

    #[test]
    fn all_problems_are_listed_at_once() {
        let mut c = config(r#"{"_class_name":"Other","a":"x","heads":[1,0],"fixed":2,"new":true,"gone":null}"#);
        assert_eq!(c.size("a", None), 1);
        assert_eq!(c.sizes("heads", 2, None), [1, 1]);
        c.only("fixed", 1);
        c.none(&["gone"]);
        let _: i64 = c.need("width");
        let error = c.finish().unwrap_err().to_string();
        for part in ["`Other`", "`a` is `\"x\"`", "`heads` is `[1,0]`", "`fixed` is `2`", "`width` is missing", "`new`"]
        {
            assert!(error.contains(part), "{part} in {error}");
        }
        assert!(!error.contains("gone"), "{error}");
    }

    #[test]
    fn supported_keys_pass() {
        let mut c = config(
            r#"{"_class_name":"Net","_diffusers_version":"1","n":3,"heads":2,"scale":1,"eps":1e-5,"min":-Infinity}"#,
        );
        assert_eq!(c.size("n", None), 3);
        assert_eq!(c.sizes("heads", 3, None), [2, 2, 2]);
        c.only("scale", 1.0);
        assert_eq!(c.or("eps", 0.0), 1e-5);
        assert!(c.or("min", 0.0) < -1e300);
        c.finish().unwrap();
    }
}
