//! Previews: pictures of latents without the decoder, by a linear map of the channels of each latent to a colour.
//!
//! The map is the least-squares fit of finished pictures, of which each latent has the mean colour of its pixels. It is
//! crude, and it is nearly free. Noise would teach it nothing: latents that are not of a picture do not look like one.

use tch::{Device, Kind, Tensor};

use crate::picture::Picture;

/// Pictures that are learned from. More would not change much, and the first costs as much as the last.
const MAX_LEARNED: u32 = 16;

/// How much the map is held near zero, so that it exists for flat latents, too: nearly not at all.
const NEAR_ZERO: f64 = 1e-3;

/// What is known of the map.
pub struct Preview {
    /// With `A` the channels of latents and a 1, and `B` colours in 0..1: `A' A`, `[channels + 1, channels + 1]`, and
    /// `A' B`, `[channels + 1, 3]`, in fp64 on the CPU.
    products: Option<(Tensor, Tensor)>,
    /// The map, `[channels + 1, 3]` in fp32.
    map: Option<Tensor>,
    learned: u32,
}

impl Preview {
    /// Nothing is known: there are no previews until a picture was learned from.
    pub fn unknown() -> Self {
        Self { products: None, map: None, learned: 0 }
    }

    /// Learns from a finished picture and its latents, `[1, channels, height, width]`.
    pub fn learn(&mut self, latents: &Tensor, picture: &Picture) {
        let _no_grad = tch::no_grad_guard();
        let [_, channels, height, width] = latents.size()[..] else { return };
        let factor = i64::from(picture.height) / height;
        if self.learned >= MAX_LEARNED || factor < 1 || i64::from(picture.width) != factor * width {
            return;
        }
        self.learned += 1;
        let rgb = Tensor::from_slice(&picture.rgb).view([height, factor, width, factor, 3]).to_kind(Kind::Float);
        let colours = (rgb.mean_dim([1, 3].as_slice(), false, Kind::Float) / 255.0).view([-1, 3]).to_kind(Kind::Double);
        let channels_last = rows(latents).to_device(Device::Cpu).to_kind(Kind::Double);
        let (squares, products) = (channels_last.tr().matmul(&channels_last), channels_last.tr().matmul(&colours));
        let (squares, products) = match &self.products {
            Some((before, products_before)) => (before + squares, products_before + products),
            None => (squares + Tensor::eye(channels + 1, (Kind::Double, Device::Cpu)) * NEAR_ZERO, products),
        };
        let map = Tensor::linalg_solve(&squares, &products, true);
        // Latents that are not finite would spoil all previews after them.
        if map.isfinite().all().int64_value(&[]) != 0 {
            self.map = Some(map.to_kind(Kind::Float));
            self.products = Some((squares, products));
        }
    }

    /// The preview of latents `[1, channels, height, width]`, with a pixel for each; `None` as long as the map is
    /// unknown.
    pub fn of(&self, latents: &Tensor) -> Option<Picture> {
        let _no_grad = tch::no_grad_guard();
        let [_, _, height, width] = latents.size()[..] else { return None };
        let map = self.map.as_ref()?.to_device(latents.device());
        let image = rows(latents).matmul(&map).clamp(0.0, 1.0).view([1, height, width, 3]).permute([0, 3, 1, 2]);
        Some(Picture::of(&image))
    }
}

/// A row for each latent: its channels and a 1, `[height * width, channels + 1]` in fp32.
fn rows(latents: &Tensor) -> Tensor {
    let channels = latents.size()[1];
    let rows = latents.to_kind(Kind::Float).permute([0, 2, 3, 1]).reshape([-1, channels]);
    Tensor::cat(&[&rows, &rows.narrow(1, 0, 1).ones_like()], 1)
}
