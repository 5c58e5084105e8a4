//! What a panorama begins with of texts and pictures.

use std::cell::OnceCell;
use std::rc::Rc;

use geometry::{Ends, Placed, kept_steps};
use sd2::Sd2;
use sd2::ddim::Step;
use sd2::lpips::Features;
use sd2::vae::{Decoder, Encoder};
use tch::Tensor;

use super::threads::Threads;
use crate::kept::{Kept, Place};
use crate::panorama::Work;
use crate::picture::{resized, square};
use crate::range::{self, InF32, is_finite};
use crate::settings::{Invalid, Settings};
use crate::sources::texts;

/// Where the first step begins.
pub(super) struct Start {
    /// `[1, c, height, width]` in fp32.
    pub(super) latents: Tensor,
    /// The index of the step.
    pub(super) step: usize,
    pub(super) kept: Option<Kept>,
}

/// What looks at the pictures that are given.
pub(super) struct Viewer<'a> {
    pub(super) sd2: &'a Sd2,
    pub(super) threads: &'a Threads,
    pub(super) in_f32: &'a InF32,
    /// Loaded when a panorama first begins from a picture.
    pub(super) encoder: &'a OnceCell<Encoder>,
}

impl Viewer<'_> {
    /// The features of the picture that all windows are synchronised with, if one was given and any are.
    pub(super) fn target(&self, settings: &Settings, work: &mut Work) -> Result<Option<Rc<Features>>, Invalid> {
        let synchronises = |step| settings.step_size(step) != 0.0;
        let Some(picture) = settings.sources.anchor() else { return Ok(None) };
        if !(0..settings.num_inference_steps as usize).any(synchronises) {
            return Ok(None);
        }
        let side = self.sd2.geometry().window_pixels() as i64;
        let image = resized(&square(&picture.image()), [side, side]).to_device(self.sd2.placement.device);
        work.perceptual_forwards += 1;
        let features = self.threads.together(|| self.in_f32.features_of_picture(self.sd2, &image));
        let field = if settings.sources.anchor_image.is_some() { "anchor_image" } else { "image" };
        match features {
            Ok(features) => Ok(Some(Rc::new(features))),
            Err(network) => {
                Err(Invalid { field, message: format!("cannot be used: {}", range::explain(self.sd2, network)) })
            }
        }
    }

    /// The start of a panorama of which a picture may become part, from noise `[1, c, height, width]`.
    pub(super) fn start(
        &self,
        settings: &Settings,
        placed: Option<Placed>,
        steps: &[Step],
        noise: Tensor,
        work: &mut Work,
    ) -> Result<Start, Invalid> {
        let count = kept_steps(steps.len() as u32, settings.sources.strength) as usize;
        let (Some(image), Some(placed), true) = (&settings.sources.image, placed, count > 0) else {
            return Ok(Start { latents: noise, step: 0, kept: None });
        };
        work.picture_encodes += 1;
        let image = resized(&image.image(), [settings.height.into(), placed.scaled.into()]);
        let image = image.narrow(3, placed.cut.into(), placed.width.into());
        if placed.width == settings.width {
            // In all steps in which it is kept the panorama is the picture, so they need not be computed.
            return Ok(Start {
                latents: steps[count].noised(&self.latents_of(&image)?, &noise),
                step: count,
                kept: None,
            });
        }
        let geometry = self.sd2.geometry();
        let [left, part] = [placed.left, placed.width].map(|pixels| i64::from(pixels / geometry.vae_factor));
        let ring = settings.ends() == Ends::Ring;
        let place = Place { left, part, width: noise.size()[3], ring, reach: i64::from(geometry.window / 2).max(1) };
        // With what is beside it, so that its sides are not the ends of what the encoder sees either.
        let latents = self.latents_of(&place.continued(&image))?;
        let kept = Kept::new(&latents, place, &noise, count);
        Ok(Start { latents: noise, step: 0, kept: Some(kept) })
    }

    /// The latents `[1, c, h, w]` of an image `[1, 3, h, w]`.
    fn latents_of(&self, image: &Tensor) -> Result<Tensor, Invalid> {
        let invalid = |message| Invalid { field: "image", message };
        let encoder = self.encoder().map_err(|error| without_encoder(&error))?;
        let image = image.to_device(self.sd2.placement.device);
        let latents = self.threads.together(|| encoder.latents(&image, Decoder::STRIP));
        if is_finite(&latents) {
            return Ok(latents);
        }
        let message = "cannot be encoded: the numbers of the VAE's encoder are not finite in f32; other weights would \
                       work, and `anchor_image` needs none of them";
        Err(invalid(message.to_owned()))
    }

    /// The encoder of the VAE.
    fn encoder(&self) -> sd2::Result<&Encoder> {
        if let Some(encoder) = self.encoder.get() {
            return Ok(encoder);
        }
        let encoder = self.sd2.load_encoder()?;
        Ok(self.encoder.get_or_init(|| encoder))
    }
}

/// Why a model cannot be used with a picture that becomes part of a panorama.
pub fn without_encoder(error: &sd2::Error) -> Invalid {
    let message = format!(
        "cannot be used with this model: {error}; one whose VAE has an encoder would work, and `anchor_image` needs none"
    );
    Invalid { field: "image", message }
}

/// The texts, from left to right, of the branches that have any influence on the guided output: `negative + scale *
/// (positive - negative)`.
pub(super) fn influential_texts(settings: &Settings) -> Vec<Vec<String>> {
    let negative = vec![settings.negative_prompt.clone()];
    let positive = texts(&settings.prompt, &settings.sources.prompts);
    match settings.guidance_scale {
        0.0 => vec![negative],
        1.0 => vec![positive],
        _ if positive.iter().all(|text| *text == negative[0]) => vec![positive],
        _ => vec![negative, positive],
    }
}
