//! From RGB to what a prediction gives out: a PNG with its making written into it, as a data URI.
//!
//! Encoding takes tens of milliseconds: call [`picture`] off the async threads.

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::{Input, Model};

/// The start of every data URI that is given out.
const PREFIX: &str = "data:image/png;base64,";

/// What is written into the picture besides its pixels.
#[derive(Clone, Debug)]
pub struct Metadata<'a> {
    /// What it was made from.
    pub input: &'a Input,
    /// Name and hash of the model that made it.
    pub model: Option<(&'a str, &'a str)>,
}

impl<'a> Metadata<'a> {
    /// That of a picture made by a model.
    pub fn new(input: &'a Input, model: Option<&'a Model>) -> Self {
        Self { input, model: model.map(|model| (model.name.as_str(), model.version.as_str())) }
    }

    /// The line that the tools of AUTOMATIC1111 read.
    fn parameters(&self) -> String {
        let input = self.input;
        let negative = match input.negative_prompt.as_str() {
            "" => String::new(),
            text => format!("Negative prompt: {text}\n"),
        };
        let model = self.model.map_or_else(String::new, |(name, version)| {
            format!(", Model: {name}, Model hash: {}", version.get(..10).unwrap_or(version))
        });
        format!(
            "{}\n{negative}Steps: {}, Sampler: DDIM, CFG scale: {}, Seed: {}, Size: {}x{}{model}, Sync weight: {}, \
             Sync decay rate: {}, Sync freq: {}, Sync threshold: {}, Stride: {}, Loop closure: {}",
            input.prompt,
            input.num_inference_steps,
            input.guidance_scale,
            input.seed,
            input.width,
            input.height,
            input.sync_weight,
            input.sync_decay_rate,
            input.sync_freq,
            input.sync_threshold,
            input.stride,
            input.loop_closure
        )
    }
}

/// Encodes `3 * width * height` bytes of RGB as a PNG.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] if the bytes do not fit the sizes.
pub fn picture(rgb: &[u8], width: u32, height: u32, metadata: &Metadata<'_>) -> io::Result<Vec<u8>> {
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
    let texts = [("parameters", metadata.parameters()), ("prediction", serde_json::to_string(metadata.input)?)];
    for (key, text) in texts {
        // A plain text chunk is Latin-1; what is not goes into an international one.
        let added = if text.chars().all(|c| u32::from(c) < 256) {
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

/// A PNG as a data URI.
pub fn data_uri(png: &[u8]) -> Arc<str> {
    let mut uri = String::with_capacity(PREFIX.len() + png.len().div_ceil(3) * 4);
    uri.push_str(PREFIX);
    STANDARD.encode_string(png, &mut uri);
    uri.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_picture_keeps_its_pixels_and_its_making() {
        for prompt in ["a mountain", "日本 🏔"] {
            let input = crate::input::parse(&json!({"prompt": prompt, "seed": 7}), None).unwrap().input;
            let rgb: Vec<u8> = (0..3 * 16 * 8).map(|i| (i * 7 % 256) as u8).collect();
            let png = picture(&rgb, 16, 8, &Metadata { input: &input, model: Some(("demo", "abc")) }).unwrap();
            let mut reader = png::Decoder::new(io::Cursor::new(&png)).read_info().unwrap();
            let mut read = vec![0; reader.output_buffer_size().unwrap()];
            reader.next_frame(&mut read).unwrap();
            assert_eq!(read, rgb);
            let info = reader.info();
            let latin = info.uncompressed_latin1_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone()));
            let utf8 = info.utf8_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.get_text().unwrap()));
            let texts: std::collections::HashMap<String, String> = latin.chain(utf8).collect();
            assert!(texts["parameters"].starts_with(&format!("{prompt}\nSteps: 50, Sampler: DDIM")), "{texts:?}");
            assert_eq!(serde_json::from_str::<Input>(&texts["prediction"]).unwrap(), input);
            assert!(data_uri(&png).starts_with("data:image/png;base64,iVBOR"));
        }
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        let input = crate::input::parse(&json!({"prompt": "a"}), None).unwrap().input;
        assert!(picture(&[0; 5], 16, 8, &Metadata { input: &input, model: None }).is_err());
    }
}
