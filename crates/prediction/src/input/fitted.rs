//! Defaults and bounds that a model can draw, where it is not Stable Diffusion 2 base.
//!
//! A model with windows of 768 pixels cannot draw a height of 512, which is what the table says when it is left out.
//! What a client leaves out is then the nearest that the model can draw; what it says is checked as ever.

use geometry::Geometry;

use crate::input::table::{COUNT, Default, Field, Kind, TABLE};

/// The table of a model. `stride` is what a request or its preset says.
pub fn table(geometry: Geometry, stride: Option<u64>) -> [Field; COUNT] {
    let usual = |name: &str| match TABLE.iter().find(|field| field.name == name).map(|field| field.default) {
        Some(Default::Integer(value)) => value,
        _ => 0,
    };
    let strides: Vec<u64> = geometry.strides().into_iter().map(Into::into).collect();
    let wanted = stride.unwrap_or(usual("stride"));
    let stride = strides.into_iter().min_by_key(|stride| stride.abs_diff(wanted)).unwrap_or(usual("stride"));
    let step = stride.max(1) * u64::from(geometry.vae_factor);
    TABLE.map(|field| match (field.name, field.kind) {
        ("stride", _) => Field { default: Default::Integer(stride), ..field },
        ("width" | "height", Kind::Integer { minimum: Some(minimum), maximum: Some(maximum) }) => {
            let minimum = minimum.max(geometry.window_pixels());
            let least = minimum.next_multiple_of(step.max(1));
            let wanted = usual(field.name).max(least);
            // The nearest multiple, the smaller of two that are as near.
            let below = (wanted / step * step).max(least);
            let above = below + step;
            let default = if wanted - below <= above - wanted || above > maximum { below } else { above };
            let kind = Kind::Integer { minimum: Some(minimum), maximum: Some(maximum) };
            Field { kind, default: Default::Integer(default), ..field }
        }
        _ => field,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::input::parse;

    fn geometry(window: u32, vae_factor: u32) -> Geometry {
        Geometry { window, vae_factor }
    }

    #[test]
    fn nothing_changes_for_the_base_model() {
        for stride in [None, Some(8), Some(16), Some(32)] {
            let table = table(Geometry::default(), stride);
            let expected = TABLE.map(|field| match (field.name, stride) {
                ("stride", Some(stride)) => Field { default: Default::Integer(stride), ..field },
                _ => field,
            });
            assert_eq!(table, expected);
        }
    }

    /// A prompt is enough, whatever the model and the stride.
    #[test]
    fn what_is_left_out_can_be_drawn() {
        for (window, factor) in [(64, 8), (96, 8), (128, 8), (80, 8), (48, 8), (32, 4), (16, 4), (24, 16)] {
            let geometry = geometry(window, factor);
            let strides: Vec<u64> = geometry.strides().into_iter().map(Into::into).collect();
            let mut inputs = vec![json!({"prompt": "x"})];
            inputs.extend(strides.iter().map(|stride| json!({"prompt": "x", "stride": stride})));
            for input in inputs {
                let parsed = parse(&input, Some(geometry));
                assert!(parsed.is_ok(), "{geometry:?} {input}: {parsed:?}");
            }
        }
        let input = parse(&json!({"prompt": "x"}), Some(geometry(96, 8))).unwrap().input;
        assert_eq!((input.width, input.height, input.stride), (2048, 768, 16));
        let looped = parse(&json!({"prompt": "x", "loop_closure": true}), Some(geometry(96, 8))).unwrap().input;
        assert_eq!(looped.height, 768);
        let wide = parse(&json!({"prompt": "x", "stride": 48}), Some(geometry(96, 8))).unwrap().input;
        assert_eq!((wide.width, wide.height), (1920, 768));
    }

    /// What the help says of other defaults is true of all other fields.
    #[test]
    fn only_what_the_help_names_is_fitted() {
        for geometry in [geometry(96, 8), geometry(32, 4), geometry(48, 8)] {
            for (usual, own) in TABLE.into_iter().zip(table(geometry, None)) {
                assert!(usual == own || usual.is_fitted(), "{geometry:?} {}", usual.name);
            }
        }
    }

    #[test]
    fn the_schema_says_so() {
        let schema = crate::input::schema::of(&table(geometry(96, 8), None));
        let height = &schema["properties"]["height"];
        assert_eq!(
            (&height["default"], &height["minimum"], &height["maximum"]),
            (&json!(768), &json!(768), &json!(3072))
        );
        assert_eq!(schema["properties"]["width"]["default"], json!(2048));
    }
}
