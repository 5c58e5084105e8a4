//! The pictures that come with a job.

use std::sync::Arc;

use panorama::Picture;
use protocol::Given;

/// Pictures by the inputs that name them.
#[derive(Debug, Default)]
pub(crate) struct Pictures(Vec<(String, Arc<Picture>)>);

impl Pictures {
    /// Cuts the bytes of a frame into the pictures that its command announces.
    ///
    /// # Errors
    /// If they do not add up.
    pub(crate) fn cut(given: Vec<Given>, bytes: &[u8]) -> Result<Self, String> {
        let mut rest = bytes;
        let mut pictures = Vec::with_capacity(given.len());
        for Given { field, width, height } in given {
            let size = 3 * u64::from(width) * u64::from(height);
            let rgb = usize::try_from(size).ok().filter(|&size| size > 0).and_then(|size| rest.split_at_checked(size));
            let Some((rgb, more)) = rgb else {
                return Err(format!("`{field}` is {width}x{height}, and {} bytes are left for it", rest.len()));
            };
            pictures.push((field, Arc::new(Picture { width, height, rgb: rgb.to_vec() })));
            rest = more;
        }
        if rest.is_empty() { Ok(Self(pictures)) } else { Err(format!("{} bytes belong to no picture", rest.len())) }
    }

    /// The picture of an input, which has one if it is `named`.
    ///
    /// # Errors
    /// If it is not there.
    pub(crate) fn of(&self, field: &str, named: bool) -> Result<Option<Arc<Picture>>, String> {
        let found = self.0.iter().find(|(of, _)| of == field);
        match (named, found) {
            (true, None) => Err(format!("`{field}` came without its pixels; send them in the frame of the job")),
            (true, Some((_, picture))) => Ok(Some(Arc::clone(picture))),
            (false, _) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(field: &str, width: u32, height: u32) -> Given {
        Given { field: field.to_owned(), width, height }
    }

    #[test]
    fn pictures_follow_each_other() {
        let bytes: Vec<u8> = (0..3 * 7).collect();
        let pictures = Pictures::cut(vec![given("image", 2, 3), given("anchor_image", 1, 1)], &bytes).unwrap();
        let image = pictures.of("image", true).unwrap().unwrap();
        assert_eq!((image.width, image.height, &image.rgb[..]), (2, 3, &bytes[..18]));
        assert_eq!(pictures.of("anchor_image", true).unwrap().unwrap().rgb, bytes[18..]);
        assert!(pictures.of("image", false).unwrap().is_none());
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        for (given, bytes) in [
            (vec![given("image", 2, 3)], 17),
            (vec![given("image", 2, 3)], 19),
            (vec![given("image", 0, 3)], 0),
            (vec![given("image", u32::MAX, u32::MAX)], 3),
            (vec![], 1),
        ] {
            assert!(Pictures::cut(given.clone(), &vec![0; bytes]).is_err(), "{given:?} {bytes}");
        }
        let none = Pictures::cut(Vec::new(), &[]).unwrap();
        assert!(none.of("image", true).unwrap_err().contains("`image`"));
    }
}
