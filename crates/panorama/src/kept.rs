//! The part of a panorama that is kept as a picture is.
//!
//! In each step it has the latents of the picture with the noise of that step, whatever the step before made of it
//! (Avrahami et al., "Blended Latent Diffusion", arXiv 2206.02779). The noise is always the same, that of the start, so
//! what is kept and what is drawn beside it come from one sample of noise.

use sd2::ddim::Step;
use tch::{Kind, Tensor};

/// Over how many latents at its sides a picture is kept less and less.
const TAPER: i64 = 2;

/// A picture at its place.
pub(crate) struct Kept {
    /// Its latents `[1, c, height, width]`; 0 where it is not.
    latents: Tensor,
    /// How much of each column is kept, `[1, 1, 1, width]`.
    mask: Tensor,
    /// The noise of the start, `[1, c, height, width]`.
    noise: Tensor,
    /// In how many steps, from the first, it is kept; if in all, also after the last.
    steps: usize,
}

impl Kept {
    /// Keeps latents `[1, c, height, w]` from column `left` on, in `steps` steps. At an end of the panorama they do not
    /// fade, unless its ends meet in a ring.
    pub(crate) fn new(picture: &Tensor, left: i64, noise: &Tensor, ring: bool, steps: usize) -> Self {
        let width = noise.size()[3];
        let (part, right) = (picture.size()[3], left + picture.size()[3]);
        let latents = noise.zeros_like();
        latents.narrow(3, left, part).copy_(picture);
        let (first, last) = (ring || left > 0, ring || right < width);
        let share = |column: i64| {
            if !(left..right).contains(&column) {
                return 0.0;
            }
            let from_left = if first { column - left + 1 } else { part };
            let from_right = if last { right - column } else { part };
            (from_left.min(from_right) as f32 / (TAPER + 1) as f32).min(1.0)
        };
        let mask: Vec<f32> = (0..width).map(share).collect();
        let mask = Tensor::from_slice(&mask).to_kind(Kind::Float).to_device(noise.device()).view([1, 1, 1, width]);
        Self { latents, mask, noise: noise.shallow_clone(), steps }
    }

    /// The latents before step `step` of `steps`, or after the last, with the picture at its place if it is kept there.
    pub(crate) fn put(&self, latents: Tensor, step: usize, steps: &[Step]) -> Tensor {
        let picture = match steps.get(step) {
            Some(at) if step < self.steps => at.noised(&self.latents, &self.noise),
            None if self.steps == steps.len() => self.latents.shallow_clone(),
            _ => return latents,
        };
        picture * &self.mask + latents * (1.0 - &self.mask)
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn mask(left: i64, part: i64, width: i64, ring: bool) -> Vec<f32> {
        let options = (Kind::Float, Device::Cpu);
        let noise = Tensor::zeros([1, 4, 1, width], options);
        let kept = Kept::new(&Tensor::ones([1, 4, 1, part], options), left, &noise, ring, 1);
        let latents = Vec::<f32>::try_from(kept.latents.flatten(0, -1)).unwrap();
        assert!(
            latents[..width as usize]
                .iter()
                .zip(0..)
                .all(|(&is, at)| is == f32::from(u8::from(at >= left && at < left + part)))
        );
        Vec::try_from(kept.mask.flatten(0, -1)).unwrap()
    }

    #[test]
    fn a_picture_fades_where_something_is_drawn_beside_it() {
        let (third, two) = (1.0 / 3.0, 2.0 / 3.0);
        assert_eq!(mask(2, 6, 10, false), [0.0, 0.0, third, two, 1.0, 1.0, two, third, 0.0, 0.0]);
        assert_eq!(mask(0, 4, 6, false), [1.0, 1.0, two, third, 0.0, 0.0]);
        assert_eq!(mask(2, 4, 6, false), [0.0, 0.0, third, two, 1.0, 1.0]);
        assert_eq!(mask(0, 4, 6, true), [third, two, two, third, 0.0, 0.0]);
        assert_eq!(mask(1, 1, 3, false), [0.0, third, 0.0]);
    }
}
