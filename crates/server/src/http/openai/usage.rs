//! `usage`: what a request took, in OpenAI's units.
//!
//! A picture counts a token for each 1024 of its pixels. Texts count the pieces that CLIP's tokenizer begins with
//! (words, digits, runs of signs), its begin and its end, up to the 77 that the model reads; rare words take more
//! tokens than they are counted, because the vocabulary belongs to the worker.

use protocol::Input;
use serde_json::{Value, json};

/// What the text encoder reads of a text, begin and end included.
const MAX_TOKENS: usize = 77;
/// Pixels of a token.
const PIXELS: u64 = 1024;

/// The `usage` of `n` pictures of a size.
pub(super) fn usage(input: &Input, (width, height): (u32, u32), n: u64) -> Value {
    let text = (tokens(&input.prompt) + tokens(&input.negative_prompt)) as u64;
    let output = n * (u64::from(width) * u64::from(height)).div_ceil(PIXELS);
    json!({
        "input_tokens": text,
        "input_tokens_details": { "image_tokens": 0, "text_tokens": text },
        "output_tokens": output,
        "total_tokens": text + output,
    })
}

/// Pieces of a text with begin and end, as many as are read.
fn tokens(text: &str) -> usize {
    #[derive(PartialEq, Clone, Copy)]
    enum Kind {
        Blank,
        Letter,
        Digit,
        Sign,
    }
    let kind = |c: char| match c {
        _ if c.is_whitespace() => Kind::Blank,
        _ if c.is_alphabetic() => Kind::Letter,
        _ if c.is_numeric() => Kind::Digit,
        _ => Kind::Sign,
    };
    let (mut pieces, mut last) = (0, Kind::Blank);
    for kind in text.chars().map(kind) {
        // Every digit is a piece of its own.
        pieces += usize::from(kind != Kind::Blank && (kind != last || kind == Kind::Digit));
        last = kind;
        if pieces + 2 >= MAX_TOKENS {
            return MAX_TOKENS;
        }
    }
    pieces + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_counted_as_the_tokenizer_begins() {
        for (text, count) in [("", 2), ("a photo of a mountain", 7), ("year 2026!", 8), ("a, b", 5), ("  \n", 2)] {
            assert_eq!(tokens(text), count, "{text}");
        }
        assert_eq!(tokens(&"word ".repeat(1000)), MAX_TOKENS);
    }

    #[test]
    fn pictures_are_counted_by_pixels() {
        let input = prediction::input::parse(&json!({"prompt": "a lake"}), None).unwrap().input;
        let usage = usage(&input, (2048, 512), 3);
        assert_eq!((&usage["output_tokens"], &usage["input_tokens"]), (&json!(3072), &json!(6)));
        assert_eq!(usage["total_tokens"], json!(3078));
    }
}
