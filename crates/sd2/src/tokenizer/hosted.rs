//! Words as the hosted model's environment cuts them: transformers 4.28, whose `CLIPTokenizer` without `ftfy` takes
//! BERT's `BasicTokenizer`.
//!
//! Controls are dropped, CJK characters stand alone, words are lower-cased and lose their accents, and every
//! punctuation mark stands alone, so that no contraction is ever found. Python 3.11 knows Unicode 14: what is newer is
//! dropped like a control.

use std::iter;
use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};
use tokenizers::NormalizedString;

use super::files::Parts;

/// Cuts a text.
pub(super) struct Cutter {
    /// Tokens that are found as they are, the longest first.
    tokens: Vec<String>,
}

/// A piece of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A token as it is.
    Token(String),
    /// Words with spaces between them.
    Text(String),
}

impl Cutter {
    pub(super) fn new(parts: &Parts) -> Self {
        let mut tokens: Vec<String> = parts.added.iter().map(|token| token.content.clone()).collect();
        tokens.sort_by_key(|token| std::cmp::Reverse(token.len()));
        Self { tokens }
    }

    pub(super) fn pieces(&self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let (mut from, mut at) = (0, 0);
        while let Some(next) = text[at..].chars().next() {
            match self.tokens.iter().find(|token| !token.is_empty() && text[at..].starts_with(token.as_str())) {
                Some(token) => {
                    pieces.extend([Piece::Text(words(&text[from..at])), Piece::Token(token.clone())]);
                    at += token.len();
                    from = at;
                }
                None => at += next.len_utf8(),
            }
        }
        pieces.push(Piece::Text(words(&text[from..])));
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        pieces
    }
}

/// `BasicTokenizer.tokenize`, with spaces between what it gives.
fn words(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' | '\u{fffd}' => {}
            '\t' | '\n' | '\r' => clean.push(' '),
            _ if CONTROL.contains(c) => {}
            _ if SPACE.contains(c) => clean.push(' '),
            _ if is_cjk(c) => clean.extend([' ', c, ' ']),
            _ => clean.push(c),
        }
    }
    let mut words = String::new();
    for word in clean.split_whitespace() {
        let mut decomposed = NormalizedString::from(word.to_lowercase());
        decomposed.nfd();
        words.push(' ');
        for c in decomposed.get().chars().filter(|c| !MARK.contains(*c)) {
            if is_punctuation(c) {
                words.extend([' ', c, ' ']);
            } else {
                words.push(c);
            }
        }
    }
    let words: Vec<&str> = words.split_whitespace().collect();
    words.join(" ")
}

fn is_cjk(c: char) -> bool {
    matches!(u32::from(c),
        0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x2a6df | 0x2a700..=0x2ceaf | 0x2f800..=0x2fa1f)
}

fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || PUNCTUATION.contains(c)
}

/// A set of characters.
struct Set(Vec<(char, char)>);

impl Set {
    fn contains(&self, c: char) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < c);
        self.0.get(at).is_some_and(|(first, _)| *first <= c)
    }

    /// The characters that a class of regular expressions matches.
    fn of(class: &str) -> Self {
        let parsed = regex_syntax::parse(class).expect("the class is one of those below");
        match parsed.into_kind() {
            HirKind::Class(Class::Unicode(class)) => {
                Self(class.ranges().iter().map(|range| (range.start(), range.end())).collect())
            }
            _ => Self(iter::empty().collect()),
        }
    }
}

static CONTROL: LazyLock<Set> = LazyLock::new(|| Set::of(r"[\p{C}\P{Age=14.0}]"));
static SPACE: LazyLock<Set> = LazyLock::new(|| Set::of(r"\p{Zs}"));
static MARK: LazyLock<Set> = LazyLock::new(|| Set::of(r"\p{Mn}"));
static PUNCTUATION: LazyLock<Set> = LazyLock::new(|| Set::of(r"\p{P}"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_as_bert_does() {
        for (text, expected) in [
            ("You should've", "you should ' ve"),
            ("Résumé ÄÖÜ straße", "resume aou straße"),
            ("夜の山", "夜 の 山"),
            ("high-detail -- 8k", "high - detail - - 8k"),
            ("x\u{200b}y\u{ad}z", "xyz"),
            ("ΣΊΣΥΦΟΣ", "σισυφος"),
            ("a\u{1fae8}b", "ab"),
            ("a\u{2028}b\u{3000}c", "a b c"),
            ("", ""),
        ] {
            assert_eq!(words(text), expected, "{text:?}");
        }
    }
}
