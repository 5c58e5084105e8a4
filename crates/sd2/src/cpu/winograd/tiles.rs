//! How a batch of maps is cut into tiles.

use std::cmp;
use std::mem;

/// Outputs of a tile along an axis.
pub(super) const OUTPUTS: usize = 4;

/// Taps of a kernel along an axis.
pub(super) const TAPS: usize = 3;

/// Inputs of a tile along an axis.
pub(super) const INPUTS: usize = OUTPUTS + TAPS - 1;

/// Elements of a transformed tile, and so matrix products.
pub(super) const ELEMENTS: usize = INPUTS * INPUTS;

/// Height and width of a map.
#[derive(Clone, Copy)]
pub(super) struct Map {
    pub(super) h: usize,
    pub(super) w: usize,
}

/// Where a tile of a batch is: its map, and its first row and column of outputs.
#[derive(Clone, Copy)]
pub(super) struct Corner {
    pub(super) sample: usize,
    pub(super) top: usize,
    pub(super) left: usize,
}

impl Map {
    /// Tiles of the map.
    pub(super) fn tiles(self) -> usize {
        self.h.div_ceil(OUTPUTS) * self.tiles_across()
    }

    fn tiles_across(self) -> usize {
        self.w.div_ceil(OUTPUTS)
    }

    /// Where a tile is, by its number in the batch.
    pub(super) fn corner(self, tile: usize) -> Corner {
        let (sample, tile) = (tile / self.tiles(), tile % self.tiles());
        let (row, column) = (tile / self.tiles_across(), tile % self.tiles_across());
        Corner { sample, top: row * OUTPUTS, left: column * OUTPUTS }
    }

    /// The first row of outputs of a tile, counted over all maps of the batch.
    pub(super) fn first_row(self, tile: usize) -> usize {
        let Corner { sample, top, .. } = self.corner(tile);
        sample * self.h + top
    }
}

/// Some tiles of a batch, transformed together.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    pub(super) map: Map,
    /// The number of the first tile in the batch.
    pub(super) first: usize,
    pub(super) count: usize,
    /// How many tiles the buffers of transformed tiles have room for.
    pub(super) capacity: usize,
}

/// Whole rows of tiles, from `first` up to `end`, and their outputs.
pub(super) struct Band<'a> {
    pub(super) first: usize,
    pub(super) end: usize,
    pub(super) y: &'a mut [f32],
}

/// Cuts the outputs of `n` maps into a band for each thread.
pub(super) fn bands(map: Map, n: usize, threads: usize, mut y: &mut [f32]) -> Vec<Band<'_>> {
    let (tiles, row_len) = (n * map.tiles(), y.len() / (n * map.h));
    let tiles_per_band = (tiles / map.tiles_across()).div_ceil(threads) * map.tiles_across();
    let band = |first| {
        let end = cmp::min(first + tiles_per_band, tiles);
        let (of_band, rest) = mem::take(&mut y).split_at_mut((map.first_row(end) - map.first_row(first)) * row_len);
        y = rest;
        Band { first, end, y: of_band }
    };
    (0..tiles).step_by(tiles_per_band).map(band).collect()
}
