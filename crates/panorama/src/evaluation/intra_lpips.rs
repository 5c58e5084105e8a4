//! Intra-LPIPS, the measure of the paper for how much a panorama is of one piece: squares of 512 pixels are cut out of
//! it side by side, and their perceptual distances, those of all pairs, are averaged. Lower is more coherent.

use sd2::lpips::{Features, Lpips};
use tch::{Kind, Tensor};

use crate::picture::Picture;

/// The side of a square in pixels.
const SQUARE: i64 = 512;

/// How many squares keep their features in memory, 130 MB each with VGG16.
const MAX_KEPT: usize = 8;

/// The mean distance; `None` of a picture with less than two squares. What is left of the squares at the right and
/// below does not count.
pub(super) fn of(lpips: &Lpips, picture: &Picture) -> Option<f64> {
    let [height, width] = [picture.height, picture.width].map(i64::from);
    let places = |length: i64| (0..length / SQUARE).map(|i| i * SQUARE);
    let squares: Vec<(i64, i64)> = places(height).flat_map(|y| places(width).map(move |x| (y, x))).collect();
    if squares.len() < 2 {
        return None;
    }
    let _no_grad = tch::no_grad_guard();
    let picture = Tensor::from_slice(&picture.rgb).view([height, width, 3]);
    let features = |&(y, x): &(i64, i64)| {
        let square = picture.narrow(0, y, SQUARE).narrow(1, x, SQUARE).permute([2, 0, 1]).unsqueeze(0);
        // From bytes to -1..1, as the package does it.
        lpips.features(&(square.to_device(lpips.device()).to_kind(Kind::Float) / 127.5 - 1.0))
    };
    let (mut sum, mut pairs) = (0.0, 0_u32);
    for begin in (0..squares.len()).step_by(MAX_KEPT) {
        let mut kept: Vec<Features> = Vec::new();
        for (i, square) in squares.iter().enumerate().skip(begin) {
            let features = features(square);
            for other in &kept {
                sum += lpips.distances(&features, other).double_value(&[0]);
                pairs += 1;
            }
            if i < begin + MAX_KEPT {
                kept.push(features);
            }
        }
    }
    Some(sum / f64::from(pairs))
}
