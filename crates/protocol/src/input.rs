//! The parameters of a panorama, validated: the 13 of the hosted model, and those that change what it does not have.

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

/// How windows become one panorama where they overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blend {
    /// All count the same, as in the original.
    #[default]
    Even,
    /// They count less towards their borders.
    Smooth,
}

/// Which windows are synchronised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncMode {
    /// All but the anchor, as in the original.
    #[default]
    Windows,
    /// As many as fit side by side, elsewhere in each step.
    Canvas,
}

/// How latents get from noise to picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scheduler {
    /// DDIM, window by window, as in the original.
    #[default]
    #[serde(rename = "ddim")]
    Ddim,
    /// UniPC, the whole panorama at once.
    #[serde(rename = "unipc")]
    UniPc,
    /// DPM-Solver++ 2M, likewise.
    #[serde(rename = "dpmpp_2m")]
    DpmPp2m,
}

impl Scheduler {
    /// Its name in an input.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::UniPc => "unipc",
            Self::DpmPp2m => "dpmpp_2m",
        }
    }
}

/// How a picture is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// PNG, which loses nothing.
    #[default]
    Png,
    /// JPEG of a quality.
    Jpeg,
    /// WebP, which loses nothing.
    Webp,
}

impl Format {
    /// The media type.
    pub fn media(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }

    /// What the name of a file ends in, behind the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
        }
    }
}

/// The quality of a JPEG that is not given.
fn quality() -> u8 {
    90
}

/// The number of pictures where none is given.
fn one() -> u32 {
    1
}

/// The parameters of a panorama. Names and order of the first thirteen are those of the hosted model; the bounds are
/// checked where JSON becomes an `Input`, not here.
///
/// What comes after the thirteen may be left out. The first four of that are written together, if any of them is not
/// at its default; each of the others where it is given. So an input without them reads as it always did, and one with
/// them reads back as it was, whatever their defaults depend on.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Describes the picture.
    pub prompt: String,
    /// Describes what guidance avoids.
    pub negative_prompt: String,
    /// Width of the picture in pixels.
    pub width: u32,
    /// Height of the picture in pixels.
    pub height: u32,
    /// Scale of classifier-free guidance; 1 turns it off.
    pub guidance_scale: f64,
    /// Step size of the synchronisation at the first step.
    pub sync_weight: f64,
    /// Factor by which the step size decreases from one step to the next.
    pub sync_decay_rate: f64,
    /// Interval between synchronised steps; at least 1.
    pub sync_freq: u64,
    /// Number of steps, from the first, that may be synchronised.
    pub sync_threshold: u32,
    /// Number of steps.
    pub num_inference_steps: u32,
    /// Distance between neighbouring windows, in latents.
    pub stride: u32,
    /// Seed of the starting noise.
    pub seed: u64,
    /// Adds windows that wrap from the right edge to the left one.
    pub loop_closure: bool,
    /// How windows are averaged where they overlap.
    #[serde(default)]
    pub blend: Blend,
    /// Draws a ring: a picture whose ends meet.
    #[serde(default)]
    pub seamless: bool,
    /// Which windows are synchronised.
    #[serde(default)]
    pub sync_mode: SyncMode,
    /// How latents are stepped.
    #[serde(default)]
    pub scheduler: Scheduler,
    /// Texts from left to right, each beside `prompt`; none, or at least two.
    #[serde(default)]
    pub prompts: Vec<String>,
    /// A picture in whose look the panorama is drawn, as clients are shown it: a URL. Its pixels travel with the
    /// command.
    #[serde(default)]
    pub anchor_image: Option<String>,
    /// A picture that becomes part of the panorama, likewise.
    #[serde(default)]
    pub image: Option<String>,
    /// Column of the panorama at which `image` begins, in pixels; in the middle where it is left out.
    #[serde(default)]
    pub image_left: Option<u32>,
    /// How far `image` is redrawn, from 0 (not at all, as where it is left out) to 1.
    #[serde(default)]
    pub strength: Option<f64>,
    /// How the picture is encoded.
    #[serde(default)]
    pub output_format: Format,
    /// The quality of a JPEG, 1 to 100.
    #[serde(default = "quality")]
    pub output_quality: u8,
    /// Whether figures of the picture are wanted.
    #[serde(default)]
    pub evaluate: bool,
    /// How many pictures, of this seed and those after it.
    #[serde(default = "one")]
    pub num_outputs: u32,
}

impl Input {
    /// The input of one of its pictures, by number from 0: alone, with its own seed, and without what changes nothing
    /// of it.
    #[must_use]
    pub fn of_picture(&self, n: u32) -> Self {
        Self { seed: self.seed.wrapping_add(n.into()), evaluate: false, num_outputs: one(), ..self.clone() }
    }
}

impl Serialize for Input {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // A field that is missing here does not compile.
        let Self {
            prompt,
            negative_prompt,
            width,
            height,
            guidance_scale,
            sync_weight,
            sync_decay_rate,
            sync_freq,
            sync_threshold,
            num_inference_steps,
            stride,
            seed,
            loop_closure,
            blend,
            seamless,
            sync_mode,
            scheduler,
            prompts,
            anchor_image,
            image,
            image_left,
            strength,
            output_format,
            output_quality,
            evaluate,
            num_outputs,
        } = self;
        // Where there is an `image` another `blend` is the default.
        let more = *blend != Blend::default()
            || *seamless
            || *sync_mode != SyncMode::default()
            || *scheduler != Scheduler::default()
            || image.is_some();
        let (is_encoded, has_quality) = (*output_format != Format::default(), *output_quality != quality());
        let given = [
            !prompts.is_empty(),
            anchor_image.is_some(),
            image.is_some(),
            image_left.is_some(),
            strength.is_some(),
            is_encoded,
            has_quality,
            *evaluate,
            *num_outputs != one(),
        ];
        let count = 13 + if more { 4 } else { 0 } + given.iter().filter(|given| **given).count();
        let mut fields = to.serialize_struct("Input", count)?;
        fields.serialize_field("prompt", prompt)?;
        fields.serialize_field("negative_prompt", negative_prompt)?;
        fields.serialize_field("width", width)?;
        fields.serialize_field("height", height)?;
        fields.serialize_field("guidance_scale", guidance_scale)?;
        fields.serialize_field("sync_weight", sync_weight)?;
        fields.serialize_field("sync_decay_rate", sync_decay_rate)?;
        fields.serialize_field("sync_freq", sync_freq)?;
        fields.serialize_field("sync_threshold", sync_threshold)?;
        fields.serialize_field("num_inference_steps", num_inference_steps)?;
        fields.serialize_field("stride", stride)?;
        fields.serialize_field("seed", seed)?;
        fields.serialize_field("loop_closure", loop_closure)?;
        if more {
            fields.serialize_field("blend", blend)?;
            fields.serialize_field("seamless", seamless)?;
            fields.serialize_field("sync_mode", sync_mode)?;
            fields.serialize_field("scheduler", scheduler)?;
        }
        if !prompts.is_empty() {
            fields.serialize_field("prompts", prompts)?;
        }
        if let Some(anchor_image) = anchor_image {
            fields.serialize_field("anchor_image", anchor_image)?;
        }
        if let Some(image) = image {
            fields.serialize_field("image", image)?;
        }
        if let Some(image_left) = image_left {
            fields.serialize_field("image_left", image_left)?;
        }
        if let Some(strength) = strength {
            fields.serialize_field("strength", strength)?;
        }
        if is_encoded {
            fields.serialize_field("output_format", output_format)?;
        }
        if has_quality {
            fields.serialize_field("output_quality", output_quality)?;
        }
        if *evaluate {
            fields.serialize_field("evaluate", evaluate)?;
        }
        if *num_outputs != one() {
            fields.serialize_field("num_outputs", num_outputs)?;
        }
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_comes_after_the_thirteen_is_written_where_it_matters() {
        let hosted = json!({
            "prompt": "a", "negative_prompt": "", "width": 2048, "height": 512, "guidance_scale": 7.5,
            "sync_weight": 20.0, "sync_decay_rate": 0.99, "sync_freq": 1, "sync_threshold": 5,
            "num_inference_steps": 50, "stride": 16, "seed": 2, "loop_closure": false,
        });
        let read = |value: &Value| serde_json::from_value::<Input>(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(read(&hosted)).unwrap(), hosted);
        let with = |blend: &str, seamless: bool, sync_mode: &str, scheduler: &str| {
            let mut input = hosted.clone();
            input["blend"] = json!(blend);
            input["seamless"] = json!(seamless);
            input["sync_mode"] = json!(sync_mode);
            input["scheduler"] = json!(scheduler);
            input
        };
        for other in [
            with("smooth", false, "windows", "ddim"),
            with("even", true, "windows", "ddim"),
            with("smooth", true, "windows", "ddim"),
            with("even", false, "canvas", "ddim"),
            with("even", false, "windows", "unipc"),
            with("even", false, "windows", "dpmpp_2m"),
        ] {
            assert_eq!(serde_json::to_value(read(&other)).unwrap(), other);
        }
        assert_eq!(serde_json::to_value(read(&with("even", false, "windows", "ddim"))).unwrap(), hosted);
        for (name, value) in [
            ("prompts", json!(["by day", "at night"])),
            ("anchor_image", json!("https://example.com/a.png")),
            ("image", json!("https://example.com/b.png")),
            ("image_left", json!(0)),
            ("strength", json!(0.0)),
            ("output_format", json!("jpeg")),
            ("output_quality", json!(1)),
            ("evaluate", json!(true)),
            ("num_outputs", json!(4)),
        ] {
            let bases = [&with("smooth", true, "canvas", "unipc"), &hosted];
            // With an `image` all four are written.
            for base in &bases[..if name == "image" { 1 } else { 2 }] {
                let mut given = (*base).clone();
                given[name] = value.clone();
                assert_eq!(serde_json::to_value(read(&given)).unwrap(), given);
            }
        }
    }
}
