//! What `--json` prints, and what the table shows.

use std::path::PathBuf;

use protocol::Net;
use serde::Serialize;

use super::files::Problem;
use super::statistic::Statistic;

/// The figures, in the order of the table: key and heading.
pub(super) const FIGURES: [(&str, &str); 4] =
    [("seam", "seam"), ("borders", "borders"), ("row_borders", "row borders"), ("intra_lpips", "Intra-LPIPS")];

/// A figure each, or what became of it over several pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Each<T> {
    pub(super) seam: Option<T>,
    pub(super) borders: Option<T>,
    pub(super) row_borders: Option<T>,
    pub(super) intra_lpips: Option<T>,
}

impl<T: Copy> Each<T> {
    /// In the order of [`FIGURES`].
    pub(super) fn all(&self) -> [Option<T>; FIGURES.len()] {
        [self.seam, self.borders, self.row_borders, self.intra_lpips]
    }
}

impl From<protocol::Figures> for Each<f64> {
    fn from(figures: protocol::Figures) -> Self {
        let protocol::Figures { seam, borders, row_borders, intra_lpips } = figures;
        Self { seam, borders, row_borders, intra_lpips }
    }
}

/// A picture and its figures.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Evaluated {
    pub(super) file: PathBuf,
    pub(super) width: u32,
    pub(super) height: u32,
    /// Distance of its windows in latents, if it is known.
    pub(super) stride: Option<u32>,
    #[serde(flatten)]
    pub(super) figures: Each<f64>,
    /// Why figures are missing, in words that follow the name of the file.
    pub(super) notes: Vec<String>,
}

/// Pictures of one size and stride.
#[derive(Debug, Serialize)]
pub(super) struct Group {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) stride: Option<u32>,
    #[serde(flatten)]
    pub(super) figures: Each<Statistic>,
}

/// The whole.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) net: Net,
    pub(super) pictures: Vec<Evaluated>,
    /// By size and stride.
    pub(super) groups: Vec<Group>,
    /// Of all pictures.
    pub(super) all: Each<Statistic>,
    pub(super) problems: Vec<Problem>,
}

impl Report {
    pub(super) fn new(net: Net, pictures: Vec<Evaluated>, problems: Vec<Problem>) -> Self {
        let kind = |picture: &Evaluated| (picture.width, picture.height, picture.stride);
        let mut kinds: Vec<_> = pictures.iter().map(kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let group = |(width, height, stride)| {
            let inside = pictures.iter().filter(|picture| kind(picture) == (width, height, stride));
            Group { width, height, stride, figures: summary(inside) }
        };
        let groups = kinds.into_iter().map(group).collect();
        let all = summary(pictures.iter());
        Self { net, pictures, groups, all, problems }
    }
}

/// What the figures of pictures come to.
fn summary<'a>(pictures: impl Iterator<Item = &'a Evaluated>) -> Each<Statistic> {
    let figures: Vec<&Each<f64>> = pictures.map(|picture| &picture.figures).collect();
    let of = |figure: fn(&Each<f64>) -> Option<f64>| Statistic::of(figures.iter().filter_map(|each| figure(each)));
    Each {
        seam: of(|each| each.seam),
        borders: of(|each| each.borders),
        row_borders: of(|each| each.row_borders),
        intra_lpips: of(|each| each.intra_lpips),
    }
}
