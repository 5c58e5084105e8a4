//! Text of clients and workers as a log shows it: in one line, escaped and short.

use std::fmt::{self, Display, Write as _};

/// How many characters of a text are shown unless the caller says otherwise.
pub const MAX_SHOWN: usize = 200;

/// Writes a text with control characters escaped, cut after [`MAX_SHOWN`] characters.
pub fn shown(text: &str) -> impl Display {
    shown_up_to(text, MAX_SHOWN)
}

/// Writes a text with control characters escaped, cut after some characters.
pub fn shown_up_to(text: &str, limit: usize) -> impl Display {
    fmt::from_fn(move |to| {
        let mut characters = text.chars();
        for character in characters.by_ref().take(limit) {
            // Separators of lines and what reorders text count, too.
            let harmless = character == ' ' || !(character.is_control() || is_format(character));
            if harmless { to.write_char(character)? } else { write!(to, "{}", character.escape_default())? }
        }
        if characters.next().is_some() { to.write_char('…') } else { Ok(()) }
    })
}

fn is_format(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_short_line() {
        assert_eq!(shown("plain `words`, ü").to_string(), "plain `words`, ü");
        assert_eq!(shown("ev\nil\r\x1b[31m\u{9b}\u{2028}").to_string(), "ev\\nil\\r\\u{1b}[31m\\u{9b}\\u{2028}");
        assert_eq!(shown(&"x".repeat(MAX_SHOWN)).to_string().chars().count(), MAX_SHOWN);
        assert_eq!(shown_up_to("abcd", 3).to_string(), "abc…");
    }
}
