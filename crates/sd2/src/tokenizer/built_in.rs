//! CLIP's vocabulary, for checkpoints that come without one.
//!
//! It follows from its merges, those of OpenAI's CLIP (MIT): the bytes, the bytes that end a word, then what each merge
//! makes. `clip-merges.bin` has two ids for each, as 16-bit numbers, the lower byte first.

use std::collections::HashMap;

use super::files::{Added, END, Parts, START};
use crate::load::single_file::TextKind;

const MERGES: &[u8] = include_bytes!("clip-merges.bin");

/// The tokenizer of a family: they differ in what they pad with.
pub(super) fn parts(kind: TextKind) -> Parts {
    let mut tokens = bytes();
    let mut merges = Vec::with_capacity(MERGES.len() / 4);
    for [a, b, c, d] in MERGES.as_chunks().0 {
        let [left, right] = [u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d])].map(usize::from);
        merges.push((tokens[left].clone(), tokens[right].clone()));
        tokens.push(format!("{}{}", tokens[left], tokens[right]));
    }
    tokens.extend([START.to_owned(), END.to_owned()]);
    let vocabulary: HashMap<String, u32> = tokens.into_iter().zip(0..).collect();
    let named = |content: &str| Added { normalized: true, ..Added::plain(content) };
    let (start, end) = (named(START), named(END));
    let pad = match kind {
        TextKind::Clip => end.clone(),
        TextKind::OpenClip => Added::plain("!"),
    };
    let mut added = vec![start.clone(), end.clone()];
    if pad.content != end.content {
        added.push(pad.clone());
    }
    Parts { vocabulary, merges, start, end, pad, unknown: END.to_owned(), added, length: 77, notes: Vec::new() }
}

/// The first 512 tokens: every byte as the printable character that byte-level BPE has for it, inside a word and at its
/// end. Bytes that are printable in Latin-1 come first, as themselves; the others are numbered from 256.
fn bytes() -> Vec<String> {
    let printable = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (0..=255u8).filter(|byte| !printable(byte)).count() as u32;
    let plain = (0..=255u8).filter(printable).map(char::from);
    let characters: Vec<char> = plain.chain((256..256 + others).filter_map(char::from_u32)).collect();
    let inside = characters.iter().map(char::to_string);
    inside.chain(characters.iter().map(|character| format!("{character}</w>"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_is_that_of_clip() {
        let parts = parts(TextKind::Clip);
        assert_eq!((parts.vocabulary.len(), parts.merges.len()), (49408, 48894));
        for (token, id) in [("!", 0), ("a</w>", 320), ("the</w>", 518), (START, 49406), (END, 49407)] {
            assert_eq!(parts.vocabulary.get(token), Some(&id), "{token}");
        }
    }
}
