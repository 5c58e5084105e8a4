//! The files of a tokenizer, in all the ways that transformers has written them.
//!
//! Vocabulary and merges are in `tokenizer.json`, or else in `vocab.json` and `merges.txt`. Where
//! `tokenizer_config.json` has an `added_tokens_decoder`, that and the special tokens beside it are all there is;
//! otherwise `special_tokens_map.json` counts before `tokenizer_config.json`, and tokens are added by
//! `added_tokens.json` and `tokenizer.json`.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;

use crate::load::bundle::Bundle;
use crate::load::error::{Error, Result};
use crate::load::problem;

/// All files of a tokenizer that are read.
pub(crate) const FILES: [&str; 6] = [
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
];

pub(super) const START: &str = "<|startoftext|>";
pub(super) const END: &str = "<|endoftext|>";

/// Number of ids where no file says it.
const LENGTH: usize = 77;
/// Greater numbers are not lengths: transformers writes 10^30 where no length was set.
const MAX_LENGTH: f64 = 4096.0;

/// Pairs of tokens that become one, the most frequent first.
type Merges = Vec<(String, String)>;

/// What a tokenizer is made of.
pub(super) struct Parts {
    pub(super) vocabulary: HashMap<String, u32>,
    pub(super) merges: Merges,
    pub(super) start: Added,
    pub(super) end: Added,
    pub(super) pad: Added,
    /// The content of the token for what is not in the vocabulary.
    pub(super) unknown: String,
    /// Tokens that are found as they are, in the order in which those that are new get their ids.
    pub(super) added: Vec<Added>,
    pub(super) length: usize,
    pub(super) notes: Vec<String>,
}

/// A token that is found in a text as it is.
#[derive(Clone, Debug)]
pub(super) struct Added {
    pub(super) content: String,
    /// Whether it is looked for after normalisation.
    pub(super) normalized: bool,
    pub(super) lstrip: bool,
    pub(super) rstrip: bool,
    pub(super) single_word: bool,
}

impl Added {
    pub(super) fn plain(content: &str) -> Self {
        Self { content: content.to_owned(), normalized: false, lstrip: false, rstrip: false, single_word: false }
    }

    /// A token as a file has it: its content, or an object.
    fn read(value: &Value, special: bool) -> Option<Self> {
        #[derive(Deserialize)]
        struct Written {
            content: String,
            normalized: Option<bool>,
            #[serde(default)]
            lstrip: bool,
            #[serde(default)]
            rstrip: bool,
            #[serde(default)]
            single_word: bool,
            special: Option<bool>,
        }
        if let Value::String(content) = value {
            return Some(Self::plain(content));
        }
        let Written { content, normalized, lstrip, rstrip, single_word, special: own } =
            Written::deserialize(value).ok()?;
        let normalized = normalized.unwrap_or(!own.unwrap_or(special));
        Some(Self { content, normalized, lstrip, rstrip, single_word })
    }
}

/// Files of JSON, by name; those that are there.
struct Files {
    config: HashMap<String, Value>,
    special: HashMap<String, Value>,
    added: Option<HashMap<String, u64>>,
    whole: Option<Whole>,
}

/// What of `tokenizer.json` counts.
#[derive(Deserialize)]
struct Whole {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<Value>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: HashMap<String, u32>,
    #[serde(default)]
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Text(String),
}

impl Files {
    fn read(bundle: &Bundle) -> Result<Self> {
        fn of<T: for<'a> Deserialize<'a>>(bundle: &Bundle, name: &str) -> Result<Option<T>> {
            let path = format!("tokenizer/{name}");
            bundle.find(&path)?.map(|bytes| problem::json(&path, &bytes)).transpose()
        }
        Ok(Self {
            config: of(bundle, "tokenizer_config.json")?.unwrap_or_default(),
            special: of(bundle, "special_tokens_map.json")?.unwrap_or_default(),
            added: of(bundle, "added_tokens.json")?,
            whole: of(bundle, "tokenizer.json")?,
        })
    }

    /// Tokens that were added, by the ids that they say they have.
    fn added(&self) -> Result<BTreeMap<u64, Added>> {
        let wrong = |file: &str, value: &Value| Error::File {
            file: format!("tokenizer/{file}"),
            problem: format!("has the added token `{value}`, which cannot be understood"),
        };
        let mut tokens = BTreeMap::new();
        if let Some(Value::Object(decoder)) = self.decoder() {
            for (id, value) in decoder {
                let token = Added::read(value, false).zip(id.parse().ok());
                let (token, id) = token.ok_or_else(|| wrong("tokenizer_config.json", value))?;
                tokens.insert(id, token);
            }
            return Ok(tokens);
        }
        for (content, &id) in self.added.iter().flatten() {
            let special = NAMED.iter().any(|key| self.named(key).and_then(content_of) == Some(content));
            tokens.insert(id, Added { normalized: !special, ..Added::plain(content) });
        }
        for value in self.whole.iter().flat_map(|whole| &whole.added_tokens) {
            let token = Added::read(value, false).zip(value["id"].as_u64());
            let (token, id) = token.ok_or_else(|| wrong("tokenizer.json", value))?;
            tokens.insert(id, token);
        }
        Ok(tokens)
    }

    /// `added_tokens_decoder`, which stands for all other files.
    fn decoder(&self) -> Option<&Value> {
        self.config.get("added_tokens_decoder")
    }

    /// A value that `special_tokens_map.json` or `tokenizer_config.json` has.
    fn named(&self, key: &str) -> Option<&Value> {
        let map = self.special.get(key).filter(|_| self.decoder().is_none());
        map.or_else(|| self.config.get(key)).filter(|value| !value.is_null())
    }

    /// A special token, or its default.
    fn special(&self, key: &str, default: &str, added: &BTreeMap<u64, Added>) -> Result<Added> {
        let token = match self.named(key) {
            None => Added::plain(default),
            Some(value) => Added::read(value, true)
                .ok_or_else(|| Error::Tokenizer(format!("`{key}` is `{value}`, which is not a token")))?,
        };
        Ok(added.values().find(|known| known.content == token.content).cloned().unwrap_or(token))
    }
}

/// Keys of the special tokens.
const NAMED: [&str; 4] = ["bos_token", "eos_token", "unk_token", "pad_token"];

fn content_of(value: &Value) -> Option<&String> {
    match value {
        Value::String(content) => Some(content),
        value => match &value["content"] {
            Value::String(content) => Some(content),
            _ => None,
        },
    }
}

impl Parts {
    /// Reads `tokenizer/` of a folder.
    pub(super) fn read(bundle: &Bundle) -> Result<Self> {
        let files = Files::read(bundle)?;
        let added = files.added()?;
        let special = |key: &str, default: &str| files.special(key, default, &added);
        let [start, end, unknown, pad] = [
            special("bos_token", START)?,
            special("eos_token", END)?,
            special("unk_token", END)?,
            special("pad_token", END)?,
        ];
        let extra = ["additional_special_tokens", "extra_special_tokens"].into_iter();
        let extra = extra.filter_map(|key| files.named(key)?.as_array()).flatten();
        let extra: Vec<Added> = extra.filter_map(|value| Added::read(value, true)).collect();
        let mut tokens: Vec<Added> = added.into_values().collect();
        let known: HashSet<String> = tokens.iter().map(|token| token.content.clone()).collect();
        // Of several tokens with one content the last counts.
        let named = [&start, &end, &unknown, &pad].into_iter().chain(&extra);
        tokens.extend(named.filter(|token| !known.contains(&token.content)).cloned());
        let length = files.named("model_max_length").and_then(Value::as_f64);
        let length = match length.filter(|length| *length <= MAX_LENGTH) {
            None => LENGTH,
            Some(length) if length >= 3.0 => length as usize,
            Some(length) => {
                return Err(Error::Tokenizer(format!("`model_max_length` is {length}, less than 3")));
            }
        };
        let (vocabulary, merges) = match files.whole {
            Some(Whole { model, .. }) => model.read()?,
            None => (
                problem::json("tokenizer/vocab.json", &bundle.read("tokenizer/vocab.json")?)?,
                merges(&bundle.read("tokenizer/merges.txt")?)?,
            ),
        };
        let unknown = unknown.content;
        let mut parts = Self { vocabulary, merges, start, end, pad, unknown, added: tokens, length, notes: Vec::new() };
        parts.drop_what_has_no_embedding(bundle)?;
        Ok(parts)
    }

    /// Leaves out added tokens for which the text encoder has no embedding: nothing could be computed of them.
    fn drop_what_has_no_embedding(&mut self, bundle: &Bundle) -> Result<()> {
        let Some(bytes) = bundle.find("text_encoder/config.json")? else { return Ok(()) };
        let config: Value = problem::json("text_encoder/config.json", &bytes)?;
        let Some(embeddings) = config["vocab_size"].as_u64() else { return Ok(()) };
        let (mut next, mut new) = (self.vocabulary.len() as u64, HashMap::new());
        let (vocabulary, notes) = (&self.vocabulary, &mut self.notes);
        let needed = [&self.start.content, &self.end.content, &self.pad.content];
        let mut lost = None;
        self.added.retain(|token| {
            let id = match vocabulary.get(&token.content) {
                Some(&id) => u64::from(id),
                None => *new.entry(token.content.clone()).or_insert_with(|| {
                    next += 1;
                    next - 1
                }),
            };
            if id < embeddings {
                return true;
            }
            if needed.contains(&&token.content) {
                lost = Some((token.content.clone(), id));
            }
            notes.push(format!(
                "the added token `{}` has the id {id}, and the text encoder has {embeddings} embeddings; it is left out",
                token.content
            ));
            false
        });
        match lost {
            Some((token, id)) => Err(Error::Tokenizer(format!(
                "the special token `{token}` has the id {id}, and the text encoder has {embeddings} embeddings"
            ))),
            None => Ok(()),
        }
    }
}

impl Model {
    fn read(self) -> Result<(HashMap<String, u32>, Merges)> {
        let wrong = |problem: String| Error::File { file: "tokenizer/tokenizer.json".to_owned(), problem };
        if let Some(kind) = self.kind.filter(|kind| kind != "BPE") {
            return Err(wrong(format!("is of the type `{kind}`; CLIP's is `BPE`")));
        }
        let merges = self.merges.into_iter().map(|merge| match merge {
            Merge::Pair(left, right) => Ok((left, right)),
            Merge::Text(text) => match text.split_once(' ') {
                Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
                None => Err(wrong(format!("has the merge `{text}`, not two parts of a token"))),
            },
        });
        Ok((self.vocab, merges.collect::<Result<_>>()?))
    }
}

/// The pairs of `merges.txt`, the most frequent first.
fn merges(bytes: &[u8]) -> Result<Merges> {
    let wrong = |problem: String| Error::File { file: "tokenizer/merges.txt".to_owned(), problem };
    let text = std::str::from_utf8(problem::text(bytes)).map_err(|e| wrong(format!("is not text: {e}")))?;
    let lines = text.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    lines
        .map(|line| match line.split_once(' ') {
            Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
            None => Err(wrong(format!("has the line `{line}`, not two parts of a token"))),
        })
        .collect()
}
