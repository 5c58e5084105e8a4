//! Numbers that left the range of their dtype: nobody gets a black picture for a success.
//!
//! f16 ends at 65504, and some models go beyond it. Decoder and perceptual network are computed once more in f32 where
//! that may help. Otherwise it is an error that names the network, the dtype and what would work.

use std::cell::OnceCell;
use std::fmt;

use sd2::Sd2;
use sd2::lpips::{Features, Lpips};
use sd2::vae::Decoder;
use tch::{Kind, Tensor};

/// A network whose numbers may leave the range of their dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The text encoder.
    TextEncoder,
    /// The UNet.
    UNet,
    /// The decoder of the VAE.
    Decoder,
    /// The perceptual network.
    Perceptual,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TextEncoder => "text encoder",
            Self::UNet => "UNet",
            Self::Decoder => "decoder",
            Self::Perceptual => "perceptual network",
        })
    }
}

/// How [`explain`] begins.
const BEGIN: &str = "the numbers of the ";

/// Whether an error is one of those that [`explain`] words.
pub fn is_explained(error: &str) -> bool {
    error.starts_with(BEGIN)
}

/// Whether all numbers of a tensor are finite.
pub(crate) fn is_finite(tensor: &Tensor) -> bool {
    tensor.isfinite().all().int64_value(&[]) != 0
}

/// Whether all numbers of each of several tensors of one shape `[1, ...]` are finite.
pub(crate) fn are_finite(tensors: &[Tensor]) -> Vec<bool> {
    // Nearly always all are, and then it is one question to the device.
    let all = tensors.is_empty() || is_finite(&Tensor::cat(tensors, 0));
    tensors.iter().map(|tensor| all || is_finite(tensor)).collect()
}

/// Why the numbers of a network are not finite, and what would work.
pub fn explain(sd2: &Sd2, network: Network) -> String {
    let kind = match network {
        Network::TextEncoder | Network::UNet => sd2.placement.kind,
        // They were computed again in it.
        Network::Decoder | Network::Perceptual => Kind::Float,
    };
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

/// The embedding of a text, `[1, length, width]`.
///
/// # Panics
/// If its numbers are not finite.
pub(crate) fn embedding(sd2: &Sd2, ids: &[i64]) -> Tensor {
    let embedding = sd2.text_encoder.forward(ids);
    assert!(is_finite(&embedding), "{}", explain(sd2, Network::TextEncoder));
    embedding
}

/// Decoder and perceptual network in f32 beside those of a narrower dtype, loaded when they are first needed.
#[derive(Default)]
pub(crate) struct InF32(OnceCell<(Decoder, Lpips)>);

impl InF32 {
    /// The picture of latents, `[1, 3, h, w]` in 0..1, if the one that was decoded is in range or one in f32 is.
    /// Feature maps of more than `strip` numbers are computed in strips.
    pub(crate) fn picture(&self, sd2: &Sd2, latents: &Tensor, decoded: Tensor, strip: i64) -> Result<Tensor, Network> {
        let in_range = |picture| if is_finite(&picture) { Ok(picture) } else { Err(blame(latents, Network::Decoder)) };
        match in_range(decoded) {
            Err(Network::Decoder) if sd2.placement.picture_kind != Kind::Float => {
                in_range(self.networks(sd2, Network::Decoder).0.large_pictures(latents, strip))
            }
            result => result,
        }
    }

    /// The perceptual features of the picture of latents. The picture is clamped before, as in the original: what is
    /// clipped has no gradient.
    pub(crate) fn features(&self, sd2: &Sd2, latents: &Tensor) -> Result<Features, Network> {
        self.in_range(sd2, |decoder, lpips| {
            let pictures = decoder.pictures(latents);
            let features = lpips.features(&(&pictures * 2.0 - 1.0));
            match (features.is_finite(), is_finite(&pictures)) {
                (true, _) => Ok(features),
                (false, true) => Err(Network::Perceptual),
                (false, false) => Err(blame(latents, Network::Decoder)),
            }
        })
    }

    /// The perceptual features of a picture `[1, 3, h, w]` in 0..1.
    pub(crate) fn features_of_picture(&self, sd2: &Sd2, picture: &Tensor) -> Result<Features, Network> {
        self.in_range(sd2, |_, lpips| {
            let features = lpips.features(&(picture * 2.0 - 1.0));
            if features.is_finite() { Ok(features) } else { Err(Network::Perceptual) }
        })
    }

    /// What `compute` makes with decoder and perceptual network, in f32 where they are to blame otherwise.
    pub(crate) fn in_range<T>(
        &self,
        sd2: &Sd2,
        compute: impl Fn(&Decoder, &Lpips) -> Result<T, Network>,
    ) -> Result<T, Network> {
        match compute(&sd2.decoder, &sd2.lpips) {
            Err(network @ (Network::Decoder | Network::Perceptual)) if sd2.placement.picture_kind != Kind::Float => {
                let (decoder, lpips) = self.networks(sd2, network);
                compute(decoder, lpips)
            }
            result => result,
        }
    }

    /// The networks, which are loaded because the numbers of one of them left the range of its dtype.
    fn networks(&self, sd2: &Sd2, network: Network) -> &(Decoder, Lpips) {
        self.0.get_or_init(|| {
            let kind = name(sd2.placement.picture_kind);
            tracing::warn!("{BEGIN}{network} left the range of {kind}: from now on that is computed again in f32");
            sd2.pictures_in_f32().unwrap_or_else(|error| {
                panic!("{BEGIN}{network} left the range of {kind}, and it cannot be loaded again in f32: {error}")
            })
        })
    }
}

/// The network that made numbers that are not finite, of these and of those that it was given.
fn blame(latents: &Tensor, network: Network) -> Network {
    if is_finite(latents) { network } else { Network::UNet }
}
