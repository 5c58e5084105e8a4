//! Figures of finished pictures: how visible the seam and the borders of windows are, and how much all parts of a
//! picture are of one piece.

mod intra_lpips;
mod kinks;

use geometry::{Geometry, Layout};
use sd2::lpips::Lpips;

use crate::picture::Picture;
use kinks::Kinks;

/// What a picture comes to. A figure is `None` where the picture has nothing that it could be of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// The kink where the right edge meets the left one, as a multiple of the mean kink on the grid of latents; 1 is
    /// invisible.
    pub seam: Option<f64>,
    /// The mean kink at the left and right borders of windows, likewise.
    pub borders: Option<f64>,
    /// The mean kink at the upper and lower borders of windows, likewise.
    pub row_borders: Option<f64>,
    /// The mean perceptual distance of its squares.
    pub intra_lpips: Option<f64>,
}

/// Evaluates a picture of a model of this geometry. Without a layout, which says where its windows were, there are no
/// borders, and the seam is compared with the whole grid.
pub fn figures(lpips: &Lpips, geometry: Geometry, layout: Option<Layout>, picture: &Picture) -> Figures {
    let factor = geometry.vae_factor as usize;
    let columns = Kinks::of_columns(picture, factor, layout.map(Layout::column_borders).unwrap_or_default());
    let rows = Kinks::of_rows(picture, factor, layout.map(Layout::row_borders).unwrap_or_default());
    Figures {
        seam: columns.seam(),
        borders: columns.borders(),
        row_borders: rows.borders(),
        intra_lpips: intra_lpips::of(lpips, picture),
    }
}
