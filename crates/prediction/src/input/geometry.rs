//! What the algorithm asks of stride and size, with the words for what does not do and for what would.
//!
//! Windows lie `stride` latents apart and must cover the panorama to its last column and row. A size is a multiple of
//! `vae_factor * stride`, so that is so exactly when the stride divides the window.

use protocol::Model;

/// The sizes of a model that the rules depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Side of a window, in latents.
    pub window: u32,
    /// Pixels per latent.
    pub vae_factor: u32,
}

/// That of Stable Diffusion 2 base.
impl std::default::Default for Geometry {
    fn default() -> Self {
        Self { window: 64, vae_factor: 8 }
    }
}

impl From<&Model> for Geometry {
    fn from(model: &Model) -> Self {
        Self { window: model.window, vae_factor: model.vae_factor }
    }
}

impl Geometry {
    /// Side of a window in pixels.
    pub fn window_pixels(self) -> u64 {
        u64::from(self.window) * u64::from(self.vae_factor)
    }

    /// The strides that cover every size that is a multiple of them: multiples of 8 below the window that divide it.
    pub fn strides(self) -> Vec<u64> {
        let window = u64::from(self.window);
        (8..window).step_by(8).filter(|stride| window % stride == 0).collect()
    }

    /// Why a stride does not do.
    pub(super) fn refuse_stride(self, stride: i128) -> Option<String> {
        let strides = self.strides();
        if u64::try_from(stride).is_ok_and(|stride| strides.contains(&stride)) {
            return None;
        }
        let window = self.window;
        let why = if stride < 8 {
            format!("{stride} is less than the minimum of 8")
        } else if stride % 8 != 0 {
            format!("{stride} is not a multiple of 8")
        } else if stride >= i128::from(window) {
            format!("{stride} is not smaller than the window of {window}")
        } else {
            format!("{stride} leaves columns or rows uncovered: it does not divide the window of {window}")
        };
        Some(format!("{why}; {}", would_do(&strides)))
    }

    /// Why a side of the picture does not do, given a stride that does; without one, the smallest is taken, of which
    /// every other is a multiple.
    pub(super) fn refuse_size(self, size: i128, stride: Option<u64>, bounds: (u64, u64)) -> Option<String> {
        let stride = stride.unwrap_or(8);
        let factor = u64::from(self.vae_factor);
        let step = factor * stride;
        let least = bounds.0.max(self.window_pixels());
        if size < i128::from(least) {
            return Some(format!(
                "{size} is less than the window of {least} pixels; the least that does is {}",
                least.next_multiple_of(step)
            ));
        }
        let size = u64::try_from(size).ok()?;
        if size.is_multiple_of(step) {
            return None;
        }
        let below = size / step * step;
        let nearest: Vec<String> = [below, below + step]
            .into_iter()
            .filter(|near| (least..=bounds.1).contains(near))
            .map(|near| near.to_string())
            .collect();
        let nearest = match nearest.as_slice() {
            [] => "no size within the bounds is".to_owned(),
            [one] => format!("the nearest is {one}"),
            several => format!("the nearest are {}", several.join(" and ")),
        };
        Some(format!("{size} is not a multiple of {step} ({factor} * stride {stride}); {nearest}"))
    }

    /// Why a height does not do with `loop_closure`.
    pub(super) fn refuse_loop(self, height: i128) -> Option<String> {
        let window = self.window_pixels();
        (height != i128::from(window))
            .then(|| format!("{height} is not the height of one window, as `loop_closure` needs; {window} is"))
    }
}

/// "strides that do: 8, 16 and 32".
fn would_do(strides: &[u64]) -> String {
    let names: Vec<String> = strides.iter().map(ToString::to_string).collect();
    match names.as_slice() {
        [] => "this model has no stride that does".to_owned(),
        [one] => format!("the stride that does is {one}"),
        [most @ .., last] => format!("strides that do are {} and {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strides_of_a_model_divide_its_window() {
        assert_eq!(Geometry::default().strides(), [8, 16, 32]);
        assert_eq!(Geometry { window: 96, vae_factor: 8 }.strides(), [8, 16, 24, 32, 48]);
        assert!(Geometry { window: 8, vae_factor: 8 }.strides().is_empty());
    }

    #[test]
    fn a_refused_size_names_what_would_do() {
        let geometry = Geometry::default();
        let refuse = |size, stride| geometry.refuse_size(size, Some(stride), (512, 3072));
        assert_eq!(
            refuse(1000, 16).as_deref(),
            Some("1000 is not a multiple of 128 (8 * stride 16); the nearest are 896 and 1024")
        );
        assert_eq!(
            refuse(520, 16).as_deref(),
            Some("520 is not a multiple of 128 (8 * stride 16); the nearest are 512 and 640")
        );
        assert_eq!(refuse(1024, 16), None);
        let wide = Geometry { window: 96, vae_factor: 8 };
        assert_eq!(
            wide.refuse_size(3071, Some(24), (512, 3072)).as_deref(),
            Some("3071 is not a multiple of 192 (8 * stride 24); the nearest are 2880 and 3072")
        );
        assert_eq!(
            wide.refuse_size(3070, Some(48), (512, 3071)).as_deref(),
            Some("3070 is not a multiple of 384 (8 * stride 48); the nearest is 2688")
        );
        assert_eq!(
            wide.refuse_size(512, Some(16), (512, 3072)).as_deref(),
            Some("512 is less than the window of 768 pixels; the least that does is 768")
        );
    }
}
