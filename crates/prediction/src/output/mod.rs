//! From RGB to the output of a prediction: a PNG, JPEG or WebP with metadata of how it was made, as a data URI or under
//! a name.
//!
//! Encoding takes tens of milliseconds: call [`encode`] off the async threads.

mod exif;
mod format;
mod jpeg;
mod metadata;
mod pixels;
mod read;
mod thumbnail;
mod wanted;
mod webp;

use std::io;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::{Format, Input};

pub use format::format;
pub use metadata::Metadata;
pub use read::{Made, Read, read};
pub use thumbnail::{MAX_THUMBNAIL, thumbnail, thumbnail_width};
pub use wanted::Wanted;

use crate::files;
use crate::random;

/// Encodes `3 * width * height` bytes of RGB as an input wants it, with metadata or without any. WebP is without loss;
/// only a JPEG has a quality.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] if the bytes do not fit the sizes.
pub fn encode(
    rgb: &[u8],
    (width, height): (u32, u32),
    input: &Input,
    metadata: Option<&Metadata<'_>>,
) -> io::Result<Vec<u8>> {
    check(rgb, width, height)?;
    match input.output_format {
        Format::Png => picture(rgb, width, height, metadata),
        Format::Jpeg => jpeg::encode(rgb, (width, height), input.output_quality, metadata),
        Format::Webp => webp::encode(rgb, (width, height), metadata),
    }
}

/// How many bytes RGB of a size has, if it has as many.
fn check(rgb: &[u8], width: u32, height: u32) -> io::Result<usize> {
    let wanted = 3 * width as usize * height as usize;
    if rgb.len() != wanted || wanted == 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a picture of `{width}x{height}` takes {wanted} bytes, not {}", rgb.len()),
        ));
    }
    Ok(wanted)
}

/// Encodes `3 * width * height` bytes of RGB as a PNG, with metadata or without any.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] if the bytes do not fit the sizes.
pub fn picture(rgb: &[u8], width: u32, height: u32, metadata: Option<&Metadata<'_>>) -> io::Result<Vec<u8>> {
    let wanted = check(rgb, width, height)?;
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
pub(crate) fn name(format: Format) -> io::Result<String> {
    Ok(format!("{}.{}", hex::encode(random::bytes::<20>()?), format.extension()))
}

/// Whether a text could be a name that [`name`] made.
pub(crate) fn is_name(text: &str) -> bool {
    let is_random = |text: &str| text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    stem(text).is_some_and(is_random)
}

/// The name of a picture without the extension of its format; none if it does not end in that of one.
pub fn stem(name: &str) -> Option<&str> {
    let (stem, end) = name.rsplit_once('.')?;
    [Format::Png, Format::Jpeg, Format::Webp].iter().any(|format| format.extension() == end).then_some(stem)
}

/// Writes a picture whole, or not at all.
///
/// # Errors
/// What the system says; the file is then as it was before.
pub fn save(path: &Path, picture: &[u8]) -> io::Result<()> {
    files::write(path, picture, 0o666)
}

/// An encoded picture as a data URI.
pub fn data_uri(picture: &[u8]) -> Arc<str> {
    let prefix = format!("data:{};base64,", format(picture).media());
    let mut uri = String::with_capacity(prefix.len() + picture.len().div_ceil(3) * 4);
    uri.push_str(&prefix);
    STANDARD.encode_string(picture, &mut uri);
    uri.into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use image::ImageDecoder as _;
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
    fn every_format_keeps_its_pixels_and_metadata() {
        let long = "日本 ".repeat(30_000);
        for prompt in ["a mountain", "日本 🏔", "</rdf:li> & \"quoted\" ]]> \r\n\0", &long] {
            for (format, media) in [("png", "image/png"), ("jpeg", "image/jpeg"), ("webp", "image/webp")] {
                let json = json!({"prompt": prompt, "negative_prompt": "fog", "output_format": format, "seed": 7});
                let input = crate::input::parse(&json, None).unwrap().input;
                let rgb: Vec<u8> = (0..32_u8).flat_map(|y| (0..64_u8).flat_map(move |x| [4 * x, 8 * y, 100])).collect();
                let metadata = Metadata { input: &input, model: Some(("demo", "abc")) };
                let encoded = encode(&rgb, (64, 32), &input, Some(&metadata)).unwrap();
                assert!(data_uri(&encoded).starts_with(&format!("data:{media};base64,")));
                assert_eq!(image::guess_format(&encoded).unwrap().to_mime_type(), media);
                let read = read(&encoded).unwrap();
                assert_eq!((read.width, read.height), (64, 32));
                let far = std::iter::zip(&read.rgb, &rgb).map(|(is, was)| is.abs_diff(*was)).max().unwrap();
                assert!(if format == "jpeg" { (1..16).contains(&far) } else { far == 0 }, "{format}: {far}");
                let input_of: Input = serde_json::from_str(&read.input.unwrap()).unwrap();
                assert_eq!(input_of, input, "{format}");
                let reader = image::ImageReader::new(io::Cursor::new(&encoded)).with_guessed_format().unwrap();
                let mut decoder = reader.into_decoder().unwrap();
                let (xmp, exif) = (decoder.xmp_metadata().unwrap().unwrap(), decoder.exif_metadata().unwrap());
                let xmp = String::from_utf8(xmp).unwrap();
                assert!(xmp.contains("trainedAlgorithmicMedia") && xmp.ends_with("<?xpacket end=\"r\"?>"), "{xmp}");
                assert_eq!(exif.is_some(), format != "png");
                if let Some(exif) = exif.filter(|_| prompt == "a mountain") {
                    let line = "a mountain\nNegative prompt: fog\nSteps: 50, Sampler: DDIM, CFG scale: 7.5, Seed: 7,";
                    let line: Vec<u8> = line.encode_utf16().flat_map(u16::to_be_bytes).collect();
                    assert!(exif.windows(line.len()).any(|part| part == line), "{format}");
                }
            }
        }
    }

    #[test]
    fn a_quality_is_that_of_a_jpeg() {
        let noise: Vec<u8> = (0..3 * 64 * 64_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let size = |format: &str, quality: u32| {
            let json = json!({"prompt": "a", "output_format": format, "output_quality": quality});
            let input = crate::input::parse(&json, None).unwrap().input;
            encode(&noise, (64, 64), &input, None).unwrap().len()
        };
        assert!(size("jpeg", 10) < size("jpeg", 50) && size("jpeg", 50) < size("jpeg", 100));
        assert_eq!((size("png", 1), size("webp", 1)), (size("png", 100), size("webp", 100)));
    }

    #[test]
    fn without_metadata_there_are_only_pixels() {
        let png = picture(&[7; 3 * 16 * 8], 16, 8, None).unwrap();
        assert_eq!(texts(&png), (vec![7; 3 * 16 * 8], HashMap::new()));
        for format in ["jpeg", "webp"] {
            let input = crate::input::parse(&json!({"prompt": "a", "output_format": format}), None).unwrap().input;
            let encoded = encode(&[7; 3 * 16 * 8], (16, 8), &input, None).unwrap();
            assert_eq!(read(&encoded).unwrap().input, None);
            for text in [&b"Exif"[..], b"EXIF", b"xap", b"XMP", b"rdf", b"\xff\xfe"] {
                assert!(!encoded.windows(text.len()).any(|part| part == text), "{format}");
            }
        }
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        assert!(picture(&[0; 5], 16, 8, None).is_err());
    }

    #[test]
    fn names_are_long_and_never_the_same() {
        let (one, other) = (name(Format::Png).unwrap(), name(Format::Png).unwrap());
        assert!(one != other && one.len() == 44 && one.strip_suffix(".png").is_some(), "{one}");
        assert!(name(Format::Jpeg).unwrap().strip_suffix(".jpg").is_some());
        assert!([Format::Png, Format::Jpeg, Format::Webp].iter().all(|format| is_name(&name(*format).unwrap())));
        for other in ["", "a.png", &one[..40], &format!("{one}x"), &one.to_uppercase(), &one.replace(".png", ".gif")] {
            assert!(!is_name(other), "{other}");
        }
        assert_eq!(["a.b.png", "a.jpg", ".webp"].map(stem), [Some("a.b"), Some("a"), Some("")]);
        assert_eq!(["a", "png", "a.gif", "a.png.gif", "a.PNG", "a.png."].map(stem), [None; 6]);
    }
}
