//! Data URIs (RFC 2397) of files, as clients of Cog send them: `data:image/png;base64,…`.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};

/// The largest file of a picture in bytes.
pub const MAX_PICTURE: usize = 32 << 20;
/// How many characters are decoded at a time: whole groups of four.
const PART: usize = 4096;
/// The longest head in bytes that is kept; what is longer becomes [`SHORT`].
const MAX_HEAD: usize = 100;
/// The head of which nothing is known.
pub(super) const SHORT: &str = "data:;base64,";

/// Base64 with padding or without.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What comes before the data; `None` if a text is not a data URI.
pub(crate) fn head(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_at_checked("data:".len())?;
    if !scheme.eq_ignore_ascii_case("data:") {
        return None;
    }
    let head = rest.find(',').map_or(text, |comma| &text[..=scheme.len() + comma]);
    Some(if head.len() > MAX_HEAD || !head.ends_with(',') { SHORT } else { head })
}

/// The data.
///
/// # Errors
/// Why there is none, in words for whoever sent it.
pub(super) fn data(text: &str) -> Result<Vec<u8>, String> {
    let Some((head, data)) = text.split_once(',') else {
        return Err("the data URI has no data; write `data:image/png;base64,` and the bytes in base64".to_owned());
    };
    if !head.rsplit(';').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("base64")) {
        return Err("the data URI is not in base64; write `data:image/png;base64,` and the bytes in base64".to_owned());
    }
    decoded(data)
}

/// What base64 says.
///
/// # Errors
/// Why there is nothing, in words for whoever sent it.
pub(super) fn decoded(data: &str) -> Result<Vec<u8>, String> {
    let size = data.len() / 4 * 3;
    if size > MAX_PICTURE + MAX_PICTURE / 16 {
        return Err(too_large());
    }
    let (mut decoded, mut part) = (Vec::with_capacity(size), Vec::with_capacity(PART));
    let mut add = |part: &mut Vec<u8>| {
        let added = LENIENT.decode_vec(&*part, &mut decoded);
        part.clear();
        added.map_err(|error| format!("the picture is not base64: {error}"))
    };
    // Some tools break lines.
    for byte in data.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        part.push(byte);
        if part.len() == PART {
            add(&mut part)?;
        }
    }
    add(&mut part)?;
    if decoded.len() > MAX_PICTURE { Err(too_large()) } else { Ok(decoded) }
}

/// What is said of a picture with more than [`MAX_PICTURE`] bytes.
pub(crate) fn too_large() -> String {
    format!("the picture has more than the maximum of {} MiB; scale it down, or send it as a JPEG", MAX_PICTURE >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_read_as_clients_write_it() {
        for uri in [
            "data:image/png;base64,aGk=",
            "data:;base64,aGk",
            "DATA:image/png;charset=utf-8;BASE64,aG\r\nk=\n",
            "data:application/octet-stream;base64,aGk=",
        ] {
            assert_eq!(data(uri).unwrap(), b"hi", "{uri}");
            let head = head(uri).unwrap();
            assert!(head.ends_with(',') && uri.starts_with(head), "{head}");
        }
        assert_eq!(data("data:;base64,").unwrap(), b"");
        for (uri, why) in [
            ("data:image/png;base64", "no data"),
            ("data:text/plain,hi", "not in base64"),
            ("data:;base64,a!", "base64"),
        ] {
            assert!(data(uri).unwrap_err().contains(why), "{uri}");
        }
    }

    #[test]
    fn data_is_read_in_parts_up_to_some_size() {
        let bytes: Vec<u8> = (0..10_000_u32).map(|n| (n * n / 7) as u8).collect();
        let mut text = LENIENT.encode(&bytes);
        for at in [1, 76, 5000] {
            text.insert(at, '\n');
        }
        assert_eq!(data(&format!("data:;base64,{text}")).unwrap(), bytes);
        let most = "A".repeat(MAX_PICTURE / 3 * 4);
        assert_eq!(data(&format!("data:;base64,{most}")).unwrap().len(), MAX_PICTURE / 3 * 3);
        for more in [8, MAX_PICTURE] {
            let why = data(&format!("data:;base64,{most}{}", "A".repeat(more))).unwrap_err();
            assert_eq!(why, too_large());
        }
    }

    #[test]
    fn a_head_has_no_data() {
        assert_eq!(head("data:image/png;base64,aGk="), Some("data:image/png;base64,"));
        let long = format!("data:{},aGk=", "x".repeat(1000));
        for uri in ["data:", "data:aGk=", &long] {
            assert_eq!(head(uri), Some(SHORT), "{uri}");
        }
        assert_eq!((head("http://a/data:,x"), head("dat"), head("datä:,x")), (None, None, None));
    }
}
