//! Any size: what is drawn is the next size that the model can draw, of which the middle is kept.

use prediction::input::table::Kind;
use prediction::input::{Geometry, fitted, integer, table};
use serde_json::Value;

/// How a picture of a size is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    /// Width and height that are drawn.
    pub(crate) drawn: (u32, u32),
    /// What is kept of it, if that is less.
    pub(crate) crop: Option<(u32, u32)>,
}

/// How a picture of this width and height is made of the inputs that are given.
///
/// # Errors
/// The nearest size that works, if this one is too small or too large.
pub(crate) fn fit((width, height): (u64, u64), given: &Value, geometry: Option<Geometry>) -> Result<Fit, (u64, u64)> {
    let geometry = geometry.unwrap_or_default();
    let preset = given.get("preset").filter(|preset| *preset == "fast").and_then(|_| table::fast("stride"));
    let stride = given.get("stride").cloned().or(preset).as_ref().and_then(integer);
    let stride = stride.and_then(|stride| u64::try_from(stride).ok());
    let fields = fitted::table(geometry, stride);
    let find = |name: &str| fields.iter().find(|field| field.name == name);
    let stride = find("stride").and_then(|field| field.default.value()).as_ref().and_then(Value::as_u64).unwrap_or(1);
    let step = stride.max(1) * u64::from(geometry.vae_factor.max(1));
    let bounds = |name| match find(name).map(|field| field.kind) {
        Some(Kind::Integer { minimum: Some(minimum), maximum: Some(maximum) }) => (minimum, maximum / step * step),
        _ => (1, u64::from(u32::MAX) / step * step),
    };
    let side = |name, size: u64| {
        let (minimum, maximum) = bounds(name);
        size.clamp(minimum, maximum.max(minimum))
    };
    let nearest = (side("width", width), side("height", height));
    if nearest != (width, height) {
        return Err(nearest);
    }
    // Within the bounds, so they fit.
    let drawn = [width, height].map(|size| size.next_multiple_of(step) as u32);
    let drawn = (drawn[0], drawn[1]);
    let asked = (width as u32, height as u32);
    Ok(Fit { drawn, crop: Some(asked).filter(|asked| *asked != drawn) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_next_size_is_drawn_and_its_middle_kept() {
        let of = |size, given: Value| fit(size, &given, None);
        assert_eq!(of((2048, 512), json!({})), Ok(Fit { drawn: (2048, 512), crop: None }));
        assert_eq!(of((1000, 600), json!({})), Ok(Fit { drawn: (1024, 640), crop: Some((1000, 600)) }));
        assert_eq!(of((1000, 600), json!({"stride": 8})), Ok(Fit { drawn: (1024, 640), crop: Some((1000, 600)) }));
        // As in JSON Schema, `32.0` is an integer.
        for stride in [json!(32), json!(32.0), json!(3.2e1)] {
            let fit = of((1152, 512), json!({"stride": stride}));
            assert_eq!(fit, Ok(Fit { drawn: (1280, 512), crop: Some((1152, 512)) }), "{stride}");
        }
        assert_eq!(of((1152, 512), json!({"preset": "fast"})), Ok(Fit { drawn: (1280, 512), crop: Some((1152, 512)) }));
        assert_eq!(of((576, 512), json!({"preset": "fast", "stride": 8})), Ok(Fit { drawn: (576, 512), crop: None }));
        assert_eq!(of((256, 256), json!({})), Err((512, 512)));
        assert_eq!(of((9000, 700), json!({})), Err((3072, 700)));
        let large = Geometry { window: 96, vae_factor: 8 };
        assert_eq!(fit((512, 1024), &json!({}), Some(large)), Err((768, 1024)));
    }

    proptest! {
        /// What fits is drawn by the model and has the size that was asked for; what does not is told one that does.
        #[test]
        fn every_size_is_made_or_told_another(
            width in 0..5000_u64,
            height in 0..5000_u64,
            stride in prop::option::of(prop::sample::select(vec![8_u32, 16, 32])),
        ) {
            let given = stride.map_or(json!({}), |stride| json!({"stride": stride}));
            let made = match fit((width, height), &given, None) {
                Ok(made) => made,
                Err(nearest) => fit(nearest, &given, None).unwrap(),
            };
            let mut input = given;
            input["prompt"] = json!("a");
            (input["width"], input["height"]) = (json!(made.drawn.0), json!(made.drawn.1));
            prop_assert!(prediction::input::parse(&input, Some(Geometry::default())).is_ok(), "{made:?}");
            prop_assert!(made.crop.is_none_or(|crop| crop.0 <= made.drawn.0 && crop.1 <= made.drawn.1));
        }
    }
}
