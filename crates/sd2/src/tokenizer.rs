//! CLIP's tokenizer: text to token ids, by transformers' `CLIPTokenizer`.
//!
//! Text is normalised to NFC, white space becomes single spaces, letters become lower case; then it is split into
//! words, and words into byte-level BPE tokens. The name of a special token inside a text becomes that token. The
//! padding token of Stable Diffusion 2 is `!`, so an exclamation mark is never part of a word.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::utils::Lowercase;
use tokenizers::normalizers::{NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, Tokenizer as Pipeline};

use crate::load::{Bundle, Error, Result};

/// Contractions, words, single digits, and runs of anything else that is not white space.
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// The tokenizer.
pub struct Tokenizer {
    pipeline: Pipeline,
    start: i64,
    end: i64,
    pad: i64,
    /// The number of ids of every encoded text.
    pub length: usize,
}

impl Tokenizer {
    /// Loads `tokenizer/` of a bundle: `vocab.json`, `merges.txt`, and the special tokens of `special_tokens_map.json`
    /// or else `tokenizer_config.json`.
    ///
    /// # Errors
    /// If a file is missing or malformed.
    pub fn load(bundle: &Bundle) -> Result<Self> {
        let vocabulary: HashMap<String, u32> = json("vocab.json", &bundle.read("tokenizer/vocab.json")?)?;
        let merges = merges(&bundle.read("tokenizer/merges.txt")?)?;
        let special = SpecialTokens::read(bundle)?;
        let id = |token: &SpecialToken| {
            vocabulary.get(&token.content).map(|&id| i64::from(id)).ok_or_else(|| {
                Error::Tokenizer(format!("the special token `{}` is not in `vocab.json`", token.content))
            })
        };
        let (start, end, pad) = (id(&special.start)?, id(&special.end)?, id(&special.pad)?);
        let pipeline = pipeline(&vocabulary, merges, &special).map_err(|e| Error::Tokenizer(e.to_string()))?;
        Ok(Self { pipeline, start, end, pad, length: special.length })
    }

    /// The ids of a text: start, its tokens, end, then padding up to [`Self::length`]. Tokens that do not fit are
    /// dropped.
    pub fn encode(&self, text: &str) -> Vec<i64> {
        let encoding = self.pipeline.encode_fast(text, false).expect("byte-level tokens cover every text");
        let tokens = encoding.get_ids().iter().map(|&id| i64::from(id)).take(self.length - 2);
        let ids = [self.start].into_iter().chain(tokens).chain([self.end]).chain(std::iter::repeat(self.pad));
        ids.take(self.length).collect()
    }
}

fn pipeline(
    vocabulary: &HashMap<String, u32>,
    merges: Vec<(String, String)>,
    special: &SpecialTokens,
) -> tokenizers::Result<Pipeline> {
    let vocabulary: Vec<(String, u32)> = vocabulary.iter().map(|(token, &id)| (token.clone(), id)).collect();
    let bpe = BPE::builder()
        .vocab_and_merges(vocabulary.into_iter().collect::<HashMap<_, _, _>>(), merges)
        .end_of_word_suffix("</w>".to_owned())
        .unk_token(END.to_owned())
        .build()?;
    let white_space = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ")?;
    let words = Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::new(false, true, true);
    let mut pipeline = Pipeline::new(bpe);
    pipeline.with_normalizer(Some(Normalizers::new(vec![NFC.into(), white_space.into(), Lowercase.into()])))?;
    pipeline.with_pre_tokenizer(Some(PreTokenizers::new(vec![words.into(), bytes.into()])));
    pipeline.add_tokens([&special.start, &special.end, &special.pad].map(|token| {
        AddedToken::from(token.content.clone(), true)
            .normalized(token.normalized)
            .lstrip(token.lstrip)
            .rstrip(token.rstrip)
            .single_word(token.single_word)
    }))?;
    Ok(pipeline)
}

/// The tokens that are not text.
struct SpecialTokens {
    start: SpecialToken,
    end: SpecialToken,
    pad: SpecialToken,
    length: usize,
}

/// A special token, and how it is found inside a text.
#[derive(Clone, Deserialize)]
struct SpecialToken {
    content: String,
    /// Whether it is searched for after normalisation.
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
}

impl SpecialTokens {
    fn read(bundle: &Bundle) -> Result<Self> {
        let mut files: Vec<HashMap<String, Value>> = Vec::new();
        for name in ["special_tokens_map.json", "tokenizer_config.json"] {
            if let Some(bytes) = bundle.find(&format!("tokenizer/{name}"))? {
                files.push(json(name, &bytes)?);
            }
        }
        let token = |key: &str, default: &str| match files.iter().find_map(|file| file.get(key)) {
            None | Some(Value::Null) => Ok(SpecialToken::plain(default)),
            Some(Value::String(content)) => Ok(SpecialToken::plain(content)),
            Some(other) => serde_json::from_value(other.clone())
                .map_err(|e| Error::Tokenizer(format!("`{key}` is `{other}`: {e}"))),
        };
        let length = files.iter().find_map(|file| file.get("model_max_length")).map_or(Some(77), Value::as_u64);
        Ok(Self {
            start: token("bos_token", START)?,
            end: token("eos_token", END)?,
            pad: token("pad_token", END)?,
            length: length
                .filter(|length| (3..=4096).contains(length))
                .ok_or_else(|| Error::Tokenizer("`model_max_length` must be a number from 3 to 4096".to_owned()))?
                as usize,
        })
    }
}

impl SpecialToken {
    fn plain(content: &str) -> Self {
        Self { content: content.to_owned(), normalized: false, lstrip: false, rstrip: false, single_word: false }
    }
}

fn json<T: for<'a> Deserialize<'a>>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::Tokenizer(format!("`{name}`: {e}")))
}

/// The pairs of `merges.txt`, the most frequent first.
fn merges(bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let text = std::str::from_utf8(bytes).map_err(|e| Error::Tokenizer(format!("`merges.txt`: {e}")))?;
    let lines = text.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    lines
        .map(|line| match line.split_once(' ') {
            Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
            None => {
                Err(Error::Tokenizer(format!("`merges.txt` has the line `{line}`; a line is two parts of a token")))
            }
        })
        .collect()
}
