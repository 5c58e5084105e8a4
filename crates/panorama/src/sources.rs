//! What a panorama follows beside its prompt: several texts, and pictures.

use std::sync::Arc;

use crate::picture::Picture;

/// What a panorama follows beside its prompt; by default nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sources {
    /// Texts from left to right, each beside the prompt: none, or at least two.
    pub prompts: Vec<String>,
    /// A picture that all windows are synchronised with.
    pub anchor_image: Option<Arc<Picture>>,
    /// A picture that becomes part of the panorama. All windows are synchronised with it if there is no
    /// `anchor_image`.
    pub image: Option<Arc<Picture>>,
    /// The column of the panorama at which `image` begins, in pixels; in the middle if `None`.
    pub image_left: Option<u32>,
    /// How far `image` is redrawn: 0 keeps it to the end, 1 not at all.
    pub strength: f64,
}

impl Sources {
    /// The picture that all windows are synchronised with.
    pub(crate) fn anchor(&self) -> Option<&Picture> {
        self.anchor_image.as_deref().or(self.image.as_deref())
    }
}

/// The texts that windows follow, from left to right: `prompts`, each said after the prompt; or the prompt alone.
pub fn texts(prompt: &str, prompts: &[String]) -> Vec<String> {
    if prompts.is_empty() {
        return vec![prompt.to_owned()];
    }
    prompts.iter().map(|text| joined(prompt, text)).collect()
}

/// What the prompt says of all of the panorama, and what a text says of its part.
fn joined(prompt: &str, text: &str) -> String {
    match (prompt.trim(), text.trim()) {
        ("", _) => text.to_owned(),
        (_, "") => prompt.to_owned(),
        _ => format!("{prompt}, {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_said_after_the_prompt() {
        let texts = |prompt: &str, prompts: &[&str]| {
            texts(prompt, &prompts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(texts("a beach", &[]), ["a beach"]);
        assert_eq!(texts("a beach", &["by day", "", "at night"]), ["a beach, by day", "a beach", "a beach, at night"]);
        assert_eq!(texts(" ", &["day", "night"]), ["day", "night"]);
    }
}
