//! CLIP's tokenizer: text to token ids, by transformers' `CLIPTokenizer`.
//!
//! Text is put in NFC, its white space made single spaces, lower-cased, cut into words, and each word into byte-level
//! BPE tokens. Names of special tokens inside a text are those tokens, which for the padding token of Stable Diffusion
//! 2, `!`, means that no exclamation mark ever is part of a word. Tokens that were added, as by textual inversion,
//! likewise.
//!
//! The tokenizer of the hosted model cuts [other words](hosted): its environment is of 2023.

mod built_in;
mod files;
mod hosted;

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::utils::Lowercase;
use tokenizers::normalizers::{NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, Tokenizer as Pipeline};

pub(crate) use self::files::FILES;
use self::files::Parts;
use self::hosted::Cutter;
use crate::load::bundle::Bundle;
use crate::load::error::{Error, Result};
use crate::load::single_file::TextKind;
pub use crate::words::Words;

/// Contractions, words, single digits, and runs of anything else that is not white space.
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The tokenizer.
pub struct Tokenizer {
    pipeline: Pipeline,
    /// Cuts words where the pipeline does not.
    hosted: Option<Cutter>,
    start: i64,
    end: i64,
    pad: i64,
    /// Number of ids it makes of any text.
    pub length: usize,
    /// What of its files is left out, in words.
    pub notes: Vec<String>,
}

/// A text that is longer than what the model reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlong {
    /// How many tokens it has.
    pub tokens: usize,
    /// How many of them are read.
    pub read: usize,
    /// Where what is left out begins.
    pub rest: String,
}

impl Tokenizer {
    /// Loads `tokenizer/` of a bundle: `vocab.json` and `merges.txt`, or `tokenizer.json`, and the tokens that were
    /// added, wherever they stand. A checkpoint in one file takes the tokenizer that is in the program.
    ///
    /// # Errors
    /// If a file is missing or malformed.
    pub fn load(bundle: &Bundle) -> Result<Self> {
        let parts = match bundle.single() {
            Some(file) => built_in::parts(file.text_kind()?),
            None => Parts::read(bundle)?,
        };
        Self::of(parts, bundle.words())
    }

    /// The tokenizer that is in the program: that of Stable Diffusion 2.
    ///
    /// # Errors
    /// If it cannot be built.
    pub fn built_in(words: Words) -> Result<Self> {
        Self::of(built_in::parts(TextKind::OpenClip), words)
    }

    fn of(parts: Parts, words: Words) -> Result<Self> {
        let (notes, length) = (parts.notes.clone(), parts.length);
        let specials = [&parts.start, &parts.end, &parts.pad].map(|token| token.content.clone());
        let broken = |e: tokenizers::Error| Error::Tokenizer(e.to_string());
        let hosted = (words == Words::Hosted).then(|| Cutter::new(&parts));
        let pipeline = pipeline(parts, words).map_err(broken)?;
        let id = |content: &String| {
            let id = pipeline.token_to_id(content).map(i64::from);
            id.ok_or_else(|| Error::Tokenizer(format!("the special token `{content}` has no id")))
        };
        let [start, end, pad] = [id(&specials[0])?, id(&specials[1])?, id(&specials[2])?];
        Ok(Self { pipeline, hosted, start, end, pad, length, notes })
    }

    /// The ids of a text: start, its tokens, end, then padding up to [`Self::length`]. A longer text loses its end.
    pub fn encode(&self, text: &str) -> Vec<i64> {
        let tokens = self.tokens(text).into_iter().take(self.length - 2);
        let ids = [self.start].into_iter().chain(tokens).chain([self.end]).chain(std::iter::repeat(self.pad));
        ids.take(self.length).collect()
    }

    /// What of a text is not read because it is too long.
    pub fn overlong(&self, text: &str) -> Option<Overlong> {
        let (tokens, read) = (self.tokens(text).len(), self.length - 2);
        if tokens <= read {
            return None;
        }
        // Words do not know of each other, so their tokens can be counted one by one.
        let mut count = 0;
        let rest = text.split_inclusive(char::is_whitespace).skip_while(|word| {
            count += self.tokens(word).len();
            count <= read
        });
        Some(Overlong { tokens, read, rest: rest.collect::<String>().trim().to_owned() })
    }

    /// The ids of all tokens of a text.
    fn tokens(&self, text: &str) -> Vec<i64> {
        let ids = |text: &str| -> Vec<i64> {
            let encoding = self.pipeline.encode_fast(text, false).expect("byte-level tokens cover every text");
            encoding.get_ids().iter().map(|&id| i64::from(id)).collect()
        };
        match &self.hosted {
            None => ids(text),
            Some(cutter) => {
                let pieces = cutter.pieces(text).into_iter();
                pieces
                    .flat_map(|piece| match piece {
                        hosted::Piece::Token(token) => {
                            self.pipeline.token_to_id(&token).map(i64::from).into_iter().collect()
                        }
                        hosted::Piece::Text(text) => ids(&text),
                    })
                    .collect()
            }
        }
    }
}

fn pipeline(parts: Parts, words: Words) -> tokenizers::Result<Pipeline> {
    let bpe = BPE::builder()
        .vocab_and_merges(parts.vocabulary.into_iter().collect::<std::collections::HashMap<_, _, _>>(), parts.merges)
        .end_of_word_suffix("</w>".to_owned())
        .unk_token(parts.unknown)
        .build()?;
    let white_space = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ")?;
    let pattern = Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::new(false, true, true);
    let mut pipeline = Pipeline::new(bpe);
    if words == Words::Clip {
        pipeline.with_normalizer(Some(Normalizers::new(vec![NFC.into(), white_space.into(), Lowercase.into()])))?;
    }
    pipeline.with_pre_tokenizer(Some(PreTokenizers::new(vec![pattern.into(), bytes.into()])));
    pipeline.add_tokens(parts.added.into_iter().map(|token| {
        AddedToken::from(token.content, true)
            .normalized(token.normalized)
            .lstrip(token.lstrip)
            .rstrip(token.rstrip)
            .single_word(token.single_word)
    }))?;
    Ok(pipeline)
}
