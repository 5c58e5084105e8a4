//! Numbers that left the range of their dtype: nobody gets a black picture for a success.
//!
//! f16 ends at 65504, and some models go beyond it. Decoder and perceptual network are computed once more in f32 where
//! that may help. Otherwise it is an error that names the network, the dtype and what would work.

use sd2::Sd2;
use sd2::lpips::{Features, Lpips};
use sd2::vae::Decoder;
use tch::{Kind, Tensor};

/// How [`explain`] begins.
const BEGIN: &str = "the numbers of the ";

/// Whether an error is one of those that [`explain`] words.
pub fn is_explained(error: &str) -> bool {
    error.starts_with(BEGIN)
}

/// Whether all numbers of a tensor are finite.
pub fn is_finite(tensor: &Tensor) -> bool {
    tensor.isfinite().all().int64_value(&[]) != 0
}

/// Why the numbers of a network are not finite, and what would work.
pub fn explain(sd2: &Sd2, network: &str) -> String {
    let decodes = matches!(network, "decoder" | "perceptual network");
    let kind = if decodes { sd2.placement.picture_kind } else { sd2.placement.kind };
    if let [first, others @ ..] = &sd2.damaged[..] {
        let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
        return format!(
            "{BEGIN}{network} are not finite in {}, and neither are those of the weights: {first}{more}; fetch the \
             model again, or remove the LoRA that spoils them",
            name(kind)
        );
    }
    match kind {
        Kind::Half => format!(
            "{BEGIN}{network} left the range of f16 (they are infinite or not a number); `--dtype bf16` or \
             `--dtype f32` would work"
        ),
        Kind::BFloat16 => format!(
            "{BEGIN}{network} are not finite in bf16, whose range is that of f32; try `--dtype f32`, a smaller \
             `guidance_scale` or `sync_weight`, or other weights"
        ),
        _ => format!(
            "{BEGIN}{network} are not finite in f32; a smaller `guidance_scale` or `sync_weight` may work, or \
             other weights"
        ),
    }
}

/// `f32`, `bf16` or `f16`.
fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Half => "f16",
        Kind::BFloat16 => "bf16",
        _ => "f32",
    }
}

/// The picture of latents, `[1, 3, h, w]` in 0..1. Feature maps of more than `strip` numbers are computed in strips.
///
/// # Panics
/// If its numbers are not finite, not even in f32.
pub(crate) fn picture(sd2: &Sd2, latents: &Tensor, strip: i64) -> Tensor {
    let decode = |decoder: &Decoder, _: &Lpips| decoder.large_pictures(latents, strip);
    in_range(sd2, "decoder", &decode, &is_finite)
}

/// The perceptual features of the picture of latents. The picture is clamped before, as in the original: what is
/// clipped has no gradient.
///
/// # Panics
/// If their numbers are not finite, not even in f32.
pub(crate) fn features(sd2: &Sd2, latents: &Tensor) -> Features {
    let compute = |decoder: &Decoder, lpips: &Lpips| lpips.features(&(decoder.pictures(latents) * 2.0 - 1.0));
    in_range(sd2, "decoder", &compute, &Features::is_finite)
}

/// The embedding of a text, `[1, length, width]`.
///
/// # Panics
/// If its numbers are not finite.
pub(crate) fn embedding(sd2: &Sd2, ids: &[i64]) -> Tensor {
    let embedding = sd2.text_encoder.forward(ids);
    assert!(is_finite(&embedding), "{}", explain(sd2, "text encoder"));
    embedding
}

/// What decoder and perceptual network compute, in f32 if it is not finite otherwise.
fn in_range<T>(sd2: &Sd2, network: &str, compute: &dyn Fn(&Decoder, &Lpips) -> T, is_finite: &dyn Fn(&T) -> bool) -> T {
    let result = compute(&sd2.decoder, &sd2.lpips);
    if is_finite(&result) {
        return result;
    }
    // In f32 already, or the files have gone since.
    let wider = (sd2.placement.picture_kind != Kind::Float).then(|| sd2.pictures_in_f32().ok()).flatten();
    let result = wider.map(|(decoder, lpips)| compute(&decoder, &lpips)).filter(is_finite);
    result.unwrap_or_else(|| panic!("{}", explain(sd2, network)))
}
