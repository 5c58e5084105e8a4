//! From RGB to the output of a prediction: a PNG with metadata of how it was made, as a data URI or under a name.
//!
//! Encoding takes tens of milliseconds: call [`picture`] off the async threads.

mod metadata;
mod read;

use std::io;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub use metadata::Metadata;
pub use read::{Made, Read, read};

use crate::files;
use crate::random;

/// The start of every data URI.
const PREFIX: &str = "data:image/png;base64,";

/// Encodes `3 * width * height` bytes of RGB as a PNG, with metadata or without any.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] if the bytes do not fit the sizes.
pub fn picture(rgb: &[u8], width: u32, height: u32, metadata: Option<&Metadata<'_>>) -> io::Result<Vec<u8>> {
    let wanted = 3 * width as usize * height as usize;
    if rgb.len() != wanted || wanted == 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a picture of `{width}x{height}` takes {wanted} bytes, not {}", rgb.len()),
        ));
    }
    let mut png = Vec::with_capacity(wanted / 2);
    let mut encoder = png::Encoder::new(&mut png, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    for (key, text) in metadata.map_or(Ok(Vec::new()), Metadata::texts)? {
        // A plain text chunk is Latin-1; other text needs an international one, and so does XMP, always.
        let added = if text.chars().all(|c| u32::from(c) < 256) && key != metadata::XMP {
            encoder.add_text_chunk(key.to_owned(), text)
        } else {
            encoder.add_itxt_chunk(key.to_owned(), text)
        };
        added.map_err(io::Error::other)?;
    }
    let mut writer = encoder.write_header().map_err(io::Error::other)?;
    writer.write_image_data(rgb).map_err(io::Error::other)?;
    writer.finish().map_err(io::Error::other)?;
    Ok(png)
}

/// A name for a picture that nobody can guess: 160 random bits.
///
/// # Errors
/// If the system has no random bytes.
pub(crate) fn name() -> io::Result<String> {
    name_of("png")
}

/// The same for a picture of another format, whose names have this ending.
///
/// # Errors
/// If the system has no random bytes.
pub(crate) fn name_of(ending: &str) -> io::Result<String> {
    Ok(format!("{}.{ending}", hex::encode(random::bytes::<20>()?)))
}

/// Writes a PNG whole, or not at all.
///
/// # Errors
/// What the system says; the file is then as it was before.
pub fn save(path: &Path, png: &[u8]) -> io::Result<()> {
    files::write(path, png, 0o666)
}

/// A PNG as a data URI.
pub fn data_uri(png: &[u8]) -> Arc<str> {
    let mut uri = String::with_capacity(PREFIX.len() + png.len().div_ceil(3) * 4);
    uri.push_str(PREFIX);
    STANDARD.encode_string(png, &mut uri);
    uri.into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use protocol::Input;
    use serde_json::json;

    use super::*;

    fn texts(png: &[u8]) -> (Vec<u8>, HashMap<String, String>) {
        let mut reader = png::Decoder::new(io::Cursor::new(png)).read_info().unwrap();
        let mut read = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut read).unwrap();
        let info = reader.info();
        let latin = info.uncompressed_latin1_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone()));
        let utf8 = info.utf8_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.get_text().unwrap()));
        (read, latin.chain(utf8).collect())
    }

    #[test]
    fn a_picture_keeps_its_pixels_and_metadata() {
        for prompt in ["a mountain", "una montaña", "日本 🏔", "</rdf:li> & \"quoted\" ]]>"] {
            let input = crate::input::parse(&json!({"prompt": prompt, "seed": 7}), None).unwrap().input;
            let rgb: Vec<u8> = (0..3 * 16 * 8).map(|i| (i * 7 % 256) as u8).collect();
            let metadata = Metadata { input: &input, model: Some(("demo", "abc")) };
            let png = picture(&rgb, 16, 8, Some(&metadata)).unwrap();
            let (read, texts) = texts(&png);
            assert_eq!(read, rgb);
            assert!(texts["parameters"].starts_with(&format!("{prompt}\nSteps: 50, Sampler: DDIM")), "{texts:?}");
            assert_eq!(serde_json::from_str::<Input>(&texts["prediction"]).unwrap(), input);
            assert!(texts["XML:com.adobe.xmp"].contains("trainedAlgorithmicMedia"), "{texts:?}");
            assert!(data_uri(&png).starts_with("data:image/png;base64,iVBOR"));
        }
    }

    #[test]
    fn without_metadata_there_are_only_pixels() {
        let png = picture(&[7; 3 * 16 * 8], 16, 8, None).unwrap();
        assert_eq!(texts(&png), (vec![7; 3 * 16 * 8], HashMap::new()));
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        assert!(picture(&[0; 5], 16, 8, None).is_err());
    }

    #[test]
    fn names_are_long_and_never_the_same() {
        let (one, other) = (name().unwrap(), name().unwrap());
        assert!(one != other && one.len() == 44 && one.strip_suffix(".png").is_some(), "{one}");
    }
}
