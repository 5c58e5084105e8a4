//! Exif with one property: the line of settings as `UserComment`, where the tools of AUTOMATIC1111 look for it in
//! pictures that are not PNGs.
//!
//! Source: CIPA DC-008 (Exif 3.0), 4.6: a TIFF of one directory that refers to the directory of Exif.

/// The code of the character set of a comment, which is UTF-16.
const UNICODE: [u8; 8] = *b"UNICODE\0";
/// Where the comment begins: behind the header of TIFF and two directories of one entry each.
const COMMENT: u32 = 8 + 2 * (2 + 12 + 4);

/// A block of Exif of at most `limit` bytes. A comment that is too long is cut.
pub(super) fn comment(text: &str, limit: usize) -> Vec<u8> {
    let room = limit.saturating_sub(COMMENT as usize + UNICODE.len()) / 2;
    let mut units: Vec<u16> = text.encode_utf16().collect();
    if units.len() > room {
        units.truncate(room);
        // Not in the middle of a character.
        _ = units.pop_if(|last| (0xd800..0xdc00).contains(last));
    }
    let mut exif = b"MM\0*\0\0\0\x08".to_vec();
    // The directory of Exif.
    exif.extend(entry(0x8769, 4, 1, 8 + 2 + 12 + 4));
    // The comment, bytes of no type.
    exif.extend(entry(0x9286, 7, (UNICODE.len() + 2 * units.len()) as u32, COMMENT));
    exif.extend(UNICODE);
    exif.extend(units.into_iter().flat_map(u16::to_be_bytes));
    exif
}

/// A directory of one entry.
fn entry(tag: u16, kind: u16, count: u32, value: u32) -> Vec<u8> {
    let mut directory = 1_u16.to_be_bytes().to_vec();
    directory.extend(tag.to_be_bytes());
    directory.extend(kind.to_be_bytes());
    directory.extend(count.to_be_bytes());
    directory.extend(value.to_be_bytes());
    directory.extend([0; 4]);
    directory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_lies_where_the_directories_say() {
        let exif = comment("é 🏔", 1000);
        let at = |range: std::ops::Range<usize>| u32::from_be_bytes(exif[range].try_into().unwrap()) as usize;
        let exif_directory = at(18..22);
        assert_eq!(exif[exif_directory..exif_directory + 4], [0, 1, 0x92, 0x86]);
        let (count, start) =
            (at(exif_directory + 6..exif_directory + 10), at(exif_directory + 10..exif_directory + 14));
        assert_eq!(start + count, exif.len());
        assert_eq!(exif[start..], *b"UNICODE\0\0\xe9\0\x20\xd8\x3c\xdf\xd4");
    }

    #[test]
    fn a_long_comment_is_cut_between_characters() {
        let exif = comment(&"🏔".repeat(1000), 101);
        assert_eq!(exif.len(), 44 + 8 + 4 * 12);
        assert_eq!(exif[exif.len() - 4..], *b"\xd8\x3c\xdf\xd4");
    }
}
