//! Whether a picture has a place in the panorama, which takes its size and that of the model.

use geometry::{Geometry, kept_steps};
use protocol::Input;

/// Why a picture of a size in pixels cannot be what an input says of it: the field to change, and words for whoever
/// sent it.
pub fn misplaced(input: &Input, geometry: Geometry, field: &str, size: (u32, u32)) -> Option<(&'static str, String)> {
    if field != "image" {
        return None;
    }
    let placed = match geometry.place(size, (input.width, input.height), input.image_left) {
        Ok(placed) => placed,
        Err(why) => return Some((why.field(), format!("`{}` {why}", why.field()))),
    };
    let steps = input.num_inference_steps;
    (placed.width == input.width && kept_steps(steps, input.strength.unwrap_or(0.0)) == steps).then(|| {
        let why = "`image` fills the whole panorama and is kept in every step, so nothing is drawn; choose a larger `width`, \
            or a `strength` of at least one step";
        ("image", why.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn why(field: &str, more: &Value, size: (u32, u32)) -> Option<(&'static str, String)> {
        let mut input = json!({"prompt": "a", "image": "https://a/b", "width": 1024});
        for (name, value) in more.as_object().unwrap() {
            input[name] = value.clone();
        }
        misplaced(&crate::input::parse(&input, None).unwrap().input, Geometry::default(), field, size)
    }

    #[test]
    fn a_picture_has_a_place_in_the_panorama() {
        for (more, size) in [
            (json!({}), (768, 512)),
            (json!({"image_left": 512}), (512, 512)),
            (json!({"height": 1024}), (4000, 4096)),
            (json!({"strength": 0.5}), (1024, 512)),
        ] {
            assert_eq!(why("image", &more, size), None, "{more} {size:?}");
        }
        for (more, size, field, words) in [
            (json!({}), (1, 512), "image", "`height`"),
            (json!({}), (1040, 512), "image", "`width` of at least 1040"),
            (json!({"image_left": 520}), (512, 512), "image_left", "`image` would go past the right end"),
            (json!({}), (1024, 512), "image", "`strength` of at least one step"),
            (json!({"strength": 0.01}), (1024, 512), "image", "`strength` of at least one step"),
        ] {
            let (named, why) = why("image", &more, size).unwrap();
            assert!(named == field && why.contains(words), "{named}: {why}");
        }
    }

    #[test]
    fn an_anchor_is_of_any_size() {
        for size in [(1, 1), (9000, 5000)] {
            assert_eq!(why("anchor_image", &json!({}), size), None);
        }
    }
}
