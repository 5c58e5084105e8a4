//! The format of an encoded picture.

use protocol::Format;

/// The format of a picture by its first bytes: PNG, unless they are those of another.
pub fn format(picture: &[u8]) -> Format {
    match picture {
        [0xff, 0xd8, 0xff, ..] => Format::Jpeg,
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Format::Webp,
        _ => Format::Png,
    }
}
