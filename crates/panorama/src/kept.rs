//! The part of a panorama that is kept as a picture is.
//!
//! In each step it has the latents of the picture with the noise of that step, whatever the step before made of it
//! (Avrahami et al., "Blended Latent Diffusion", arXiv 2206.02779). The noise is always the same, that of the start, so
//! what is kept and what is drawn beside it come from one sample of noise.
//!
//! That alone leaves a hard edge: light and lie of the land are decided in the first steps, where the UNet sees little
//! but noise, and what is drawn beside the picture goes its own way. So in the first steps the picture goes on beyond
//! its sides, mirrored, and is let go of column by column, the farther away the sooner (a strength for each place:
//! Levin and Fried, "Differential Diffusion", arXiv 2306.00950). What is drawn then begins in its light.

use sd2::ddim::Step;
use tch::{Kind, Tensor};

/// Over how many latents at its sides a picture is kept less and less.
const TAPER: i64 = 2;

/// In which share of the steps the picture goes on right beside itself, as a fraction.
const BESIDE: (i64, i64) = (4, 5);

/// Where a picture lies in a panorama, in latents.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Its first column.
    pub(crate) left: i64,
    /// Its width.
    pub(crate) part: i64,
    /// That of the panorama, which is more.
    pub(crate) width: i64,
    /// Whether the ends of the panorama meet.
    pub(crate) ring: bool,
    /// How far it goes on beyond its sides at most.
    pub(crate) reach: i64,
}

impl Place {
    /// How far the picture goes on to the left and to the right: as far as there is room, of which in a ring each side
    /// has half.
    fn beside(self) -> (i64, i64) {
        let room = self.width - self.part;
        let (left, right) = if self.ring { (room - room / 2, room / 2) } else { (self.left, room - self.left) };
        (left.min(self.reach), right.min(self.reach))
    }

    /// An image of the picture `[1, 3, h, w]` with all that goes on beyond its sides.
    pub(crate) fn continued(self, image: &Tensor) -> Tensor {
        let length = image.size()[3];
        let (left, right) = self.beside();
        let pixels = length / self.part;
        let columns = Tensor::arange_start(-left * pixels, length + right * pixels, (Kind::Int64, image.device()));
        let columns = columns.remainder(2 * length);
        image.index_select(3, &columns.minimum(&(2 * length - 1 - &columns)))
    }

    /// How much of each column is kept to the end.
    fn shares(self) -> Vec<f32> {
        let right = self.left + self.part;
        let (first, last) = (self.ring || self.left > 0, self.ring || right < self.width);
        let share = |column: i64| {
            if !(self.left..right).contains(&column) {
                return 0.0;
            }
            let from_left = if first { column - self.left + 1 } else { self.part };
            let from_right = if last { right - column } else { self.part };
            (from_left.min(from_right) as f32 / (TAPER + 1) as f32).min(1.0)
        };
        (0..self.width).map(share).collect()
    }

    /// In how many of `steps` steps each column is kept whole; of the picture itself, as long as what is beside it.
    fn whole(self, steps: i64) -> Vec<f32> {
        let (left, right) = self.beside();
        let mut whole = vec![0.0; self.width as usize];
        for column in self.left - left..self.left + self.part + right {
            // How far outside, less one.
            let away = (self.left - 1 - column).max(column - self.left - self.part).max(0);
            let kept = steps * BESIDE.0 * (self.reach - away) / (BESIDE.1 * self.reach);
            whole[column.rem_euclid(self.width) as usize] = kept as f32;
        }
        whole
    }
}

/// A picture at its place.
pub(crate) struct Kept {
    /// Its latents and those of what goes on beyond its sides, `[1, c, height, width]`; 0 where neither is.
    latents: Tensor,
    /// How much of each column is kept, `[1, 1, 1, width]`.
    mask: Tensor,
    /// In how many steps each column is kept whole before that, likewise.
    whole: Tensor,
    /// The noise of the start, `[1, c, height, width]`.
    noise: Tensor,
    /// In how many steps, from the first, it is kept; if in all, also after the last.
    steps: usize,
}

impl Kept {
    /// Keeps a picture in `steps` steps, by the latents `[1, c, height, w]` of [`Place::continued`]. At an end of the
    /// panorama it does not fade, unless its ends meet in a ring.
    pub(crate) fn new(continued: &Tensor, place: Place, noise: &Tensor, steps: usize) -> Self {
        let (first, count) = (place.left - place.beside().0, continued.size()[3]);
        let columns = Tensor::arange_start(first, first + count, (Kind::Int64, noise.device()));
        let latents = noise.zeros_like().index_copy(3, &columns.remainder(place.width), continued);
        let row = |of: Vec<f32>| Tensor::from_slice(&of).to_device(noise.device()).view([1, 1, 1, place.width]);
        Self {
            latents,
            mask: row(place.shares()),
            whole: row(place.whole(steps as i64)),
            noise: noise.shallow_clone(),
            steps,
        }
    }

    /// The latents before step `step` of `steps`, or after the last, with the picture at its place if it is kept there.
    pub(crate) fn put(&self, latents: Tensor, step: usize, steps: &[Step]) -> Tensor {
        let picture = match steps.get(step) {
            Some(at) if step < self.steps => at.noised(&self.latents, &self.noise),
            None if self.steps == steps.len() => self.latents.shallow_clone(),
            _ => return latents,
        };
        let mask = self.mask.maximum(&self.whole.greater(step as f64).to_kind(Kind::Float));
        picture * &mask + latents * (1.0 - mask)
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn place(left: i64, part: i64, width: i64, ring: bool) -> Place {
        Place { left, part, width, ring, reach: 4 }
    }

    #[test]
    fn a_picture_fades_where_something_is_drawn_beside_it() {
        let shares = |left, part, width, ring| place(left, part, width, ring).shares();
        let (third, two) = (1.0 / 3.0, 2.0 / 3.0);
        assert_eq!(shares(2, 6, 10, false), [0.0, 0.0, third, two, 1.0, 1.0, two, third, 0.0, 0.0]);
        assert_eq!(shares(0, 4, 6, false), [1.0, 1.0, two, third, 0.0, 0.0]);
        assert_eq!(shares(2, 4, 6, false), [0.0, 0.0, third, two, 1.0, 1.0]);
        assert_eq!(shares(0, 4, 6, true), [third, two, two, third, 0.0, 0.0]);
        assert_eq!(shares(1, 1, 3, false), [0.0, third, 0.0]);
    }

    #[test]
    fn what_is_farther_away_is_let_go_of_sooner() {
        let whole = |left, part, width, ring| place(left, part, width, ring).whole(10);
        assert_eq!(whole(5, 2, 12, false), [0.0, 2.0, 4.0, 6.0, 8.0, 8.0, 8.0, 8.0, 6.0, 4.0, 2.0, 0.0]);
        assert_eq!(whole(0, 2, 4, false), [8.0, 8.0, 8.0, 6.0]);
        assert_eq!(whole(2, 2, 4, false), [6.0, 8.0, 8.0, 8.0]);
        // The left side has the odd column.
        assert_eq!(whole(0, 2, 5, true), [8.0, 8.0, 8.0, 6.0, 8.0]);
        assert_eq!(place(0, 2, 4, false).whole(1), [0.0; 4], "there is no whole step in four fifths of one");
    }

    #[test]
    fn a_picture_goes_on_mirrored() {
        let image = Tensor::from_slice(&[0.0_f32, 1.0, 2.0, 3.0]).view([1, 1, 1, 4]);
        let continued =
            |left, part, width, ring| Vec::<f32>::try_from(place(left, part, width, ring).continued(&image).view([-1]));
        assert_eq!(continued(1, 2, 4, false).unwrap(), [1.0, 0.0, 0.0, 1.0, 2.0, 3.0, 3.0, 2.0]);
        assert_eq!(continued(0, 2, 2, false).unwrap(), [0.0, 1.0, 2.0, 3.0]);
        let far = [3.0, 2.0, 1.0, 0.0];
        let there = [0.0, 1.0, 2.0, 3.0];
        assert_eq!(continued(0, 4, 10, false).unwrap(), [there, far].concat());
        assert_eq!(continued(3, 4, 10, true).unwrap(), [&far[1..], &there, &far[..3]].concat());
    }

    #[test]
    fn latents_go_where_they_belong_round_a_ring() {
        let at = place(0, 2, 5, true);
        let continued = Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0, 5.0]).view([1, 1, 1, 5]);
        let kept = Kept::new(&continued, at, &Tensor::zeros([1, 1, 1, 5], FLOAT), 10);
        assert_eq!(Vec::<f32>::try_from(kept.latents.view([-1])).unwrap(), [3.0, 4.0, 5.0, 1.0, 2.0]);
    }
}
