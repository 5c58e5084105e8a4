//! How a text is cut into words.

use std::str::FromStr;

/// How a text is cut into words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Words {
    /// As transformers 5 does, and CLIP was trained with.
    #[default]
    Clip,
    /// As the hosted model's environment does: transformers 4.28 without `ftfy`.
    Hosted,
}

impl FromStr for Words {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "clip" => Ok(Self::Clip),
            "hosted" => Ok(Self::Hosted),
            _ => Err(format!("`{text}` is not a tokenizer; use `clip` or `hosted`")),
        }
    }
}
