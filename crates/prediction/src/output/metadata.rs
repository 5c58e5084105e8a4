//! What is written into a picture besides its pixels: how it was made, for tools and for this server, and that a model
//! made it.

use std::fmt::Write as _;

use protocol::{Input, Model, Scheduler};

use crate::input::{HOSTED, TABLE};

/// Keyword of the chunk with XMP, as Adobe defines it.
pub(super) const XMP: &str = "XML:com.adobe.xmp";

/// Keyword of the chunk with the input, as the JSON of [`Input`].
pub(super) const INPUT: &str = "prediction";

/// What the input is between in XMP.
const INPUT_BEGIN: &str = "<syncdiffusion:prediction>";
const INPUT_END: &str = "</syncdiffusion:prediction>";

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

    /// Keywords and texts of all chunks.
    pub(super) fn texts(&self) -> serde_json::Result<Vec<(&'static str, String)>> {
        let input = serde_json::to_string(self.input)?;
        Ok(vec![("parameters", self.parameters()), (INPUT, input), (XMP, self.xmp())])
    }

    /// The line that the tools of AUTOMATIC1111 read.
    pub fn parameters(&self) -> String {
        let input = self.input;
        let negative = match input.negative_prompt.as_str() {
            "" => String::new(),
            text => format!("Negative prompt: {text}\n"),
        };
        let model = self.model.map_or_else(String::new, |(name, version)| {
            format!(", Model: {name}, Model hash: {}", version.get(..10).unwrap_or(version))
        });
        let text = format!(
            "{}\n{negative}Steps: {}, Sampler: {}, CFG scale: {}, Seed: {}, Size: {}x{}{model}, Sync weight: {}, \
             Sync decay rate: {}, Sync freq: {}, Sync threshold: {}, Stride: {}, Loop closure: {}{}",
            input.prompt,
            input.num_inference_steps,
            match input.scheduler {
                Scheduler::Ddim => "DDIM",
                Scheduler::UniPc => "UniPC",
                Scheduler::DpmPp2m => "DPM++ 2M",
            },
            input.guidance_scale,
            input.seed,
            input.width,
            input.height,
            input.sync_weight,
            input.sync_decay_rate,
            input.sync_freq,
            input.sync_threshold,
            input.stride,
            input.loop_closure,
            self.more()
        );
        // Text in a PNG ends at a zero.
        text.replace('\0', "\u{fffd}")
    }

    /// The inputs after the thirteen that are not at their defaults, as [`Self::parameters`] has them. The scheduler is
    /// its sampler; how the picture is encoded says nothing of how to draw it again.
    fn more(&self) -> String {
        let input = serde_json::to_value(self.input).unwrap_or_default();
        let mut text = String::new();
        let others = ["scheduler", "output_format", "output_quality", "evaluate", "num_outputs"];
        for field in TABLE[HOSTED..].iter().filter(|field| !others.contains(&field.name)) {
            let name = field.name.replace('_', " ");
            match input.get(field.name) {
                Some(value) if Some(value) != field.default.value().as_ref() => {
                    let word = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    let _ = write!(text, ", {}{}: {word}", name[..1].to_uppercase(), &name[1..]);
                }
                _ => {}
            }
        }
        text
    }

    /// XMP of at most `limit` bytes. A prompt that is too long for it is cut.
    pub(super) fn xmp_within(&self, limit: usize) -> String {
        let mut prompt = self.prompts();
        loop {
            let xmp = self.xmp_of(&prompt, "");
            if xmp.len() <= limit || prompt.is_empty() {
                return xmp;
            }
            prompt.truncate(prompt.floor_char_boundary(prompt.len() / 2));
        }
    }

    /// XMP with the input, as the JSON of [`Input`], where there is no place for it besides.
    pub(super) fn xmp_with_input(&self) -> serde_json::Result<String> {
        let input = escape(&serde_json::to_string(self.input)?);
        let more = format!(
            "  <rdf:Description rdf:about=\"\" xmlns:syncdiffusion=\"urn:syncdiffusion:1\">\n   \
             {INPUT_BEGIN}{input}{INPUT_END}\n  </rdf:Description>\n"
        );
        Ok(self.xmp_of(&self.prompts(), &more))
    }

    /// The input of what [`Self::xmp_with_input`] has made.
    pub(super) fn input_of_xmp(xmp: &str) -> Option<String> {
        let (_, rest) = xmp.split_once(INPUT_BEGIN)?;
        Some(unescape(rest.split_once(INPUT_END)?.0))
    }

    /// The prompts as XMP has them.
    fn prompts(&self) -> String {
        match self.input.negative_prompt.as_str() {
            "" => self.input.prompt.clone(),
            negative => format!("{}\nNegative prompt: {negative}", self.input.prompt),
        }
    }

    /// XMP of the whole prompt.
    fn xmp(&self) -> String {
        self.xmp_of(&self.prompts(), "")
    }

    /// XMP with the properties of IPTC's Photo Metadata Standard 2025.1 for what a model has made, and more of them.
    fn xmp_of(&self, prompts: &str, more: &str) -> String {
        let mut properties = String::new();
        let mut add = |name: &str, value: &str| {
            let _ = writeln!(properties, "   <Iptc4xmpExt:{name}>{}</Iptc4xmpExt:{name}>", escape(value));
        };
        add("DigitalSourceType", "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia");
        add(
            "AISystemUsed",
            &self.model.map_or_else(|| "SyncDiffusion".to_owned(), |(name, _)| format!("SyncDiffusion, {name}")),
        );
        if let Some((_, version)) = self.model {
            add("AISystemVersionUsed", version);
        }
        add("AIPromptInformation", prompts);
        let round = gpano(self.input);
        format!(
            "<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\n\
             <x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\n \
             <rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\n  \
             <rdf:Description rdf:about=\"\" xmlns:xmp=\"http://ns.adobe.com/xap/1.0/\" \
             xmlns:Iptc4xmpExt=\"http://iptc.org/std/Iptc4xmpExt/2008-02-29/\">\n   \
             <xmp:CreatorTool>syncdiffusion {}</xmp:CreatorTool>\n\
             {properties}  </rdf:Description>\n{round}{more}\n </rdf:RDF>\n</x:xmpmeta>\n<?xpacket end=\"r\"?>",
            env!("CARGO_PKG_VERSION")
        )
    }
}

/// What viewers that show a picture all around look for: Google's Photo Sphere XMP Metadata. They know equirectangular
/// pictures only, of which a seamless one is the strip at the horizon, if it is not higher than the whole.
fn gpano(input: &Input) -> String {
    let (width, height, full) = (input.width, input.height, input.width / 2);
    if !input.seamless || height > full {
        return String::new();
    }
    let mut text = "  <rdf:Description rdf:about=\"\" \
        xmlns:GPano=\"http://ns.google.com/photos/1.0/panorama/\">\n"
        .to_owned();
    for (name, value) in [
        ("UsePanoramaViewer", "True".to_owned()),
        ("ProjectionType", "equirectangular".to_owned()),
        ("FullPanoWidthPixels", width.to_string()),
        ("FullPanoHeightPixels", full.to_string()),
        ("CroppedAreaImageWidthPixels", width.to_string()),
        ("CroppedAreaImageHeightPixels", height.to_string()),
        ("CroppedAreaLeftPixels", "0".to_owned()),
        ("CroppedAreaTopPixels", ((full - height) / 2).to_string()),
    ] {
        let _ = writeln!(text, "   <GPano:{name}>{value}</GPano:{name}>");
    }
    text + "  </rdf:Description>\n"
}

/// What [`escape`] was given, but for what XML cannot represent.
fn unescape(text: &str) -> String {
    let whole = text.replace("&#13;", "\r").replace("&gt;", ">").replace("&lt;", "<");
    whole.replace("&amp;", "&")
}

/// Text as XML has it. Characters that XML cannot represent are replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // Otherwise a reader makes a line end of it.
            '\r' => escaped.push_str("&#13;"),
            '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                escaped.push('\u{fffd}');
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_comes_after_the_thirteen_is_named_where_it_is_used() {
        let line = |input| {
            let input = crate::input::parse(&input, None).unwrap().input;
            Metadata { input: &input, model: None }.parameters()
        };
        assert!(line(json!({"prompt": "a"})).ends_with(", Stride: 16, Loop closure: false"));
        let smooth = line(json!({"prompt": "a", "blend": "smooth"}));
        assert!(smooth.ends_with(", Loop closure: false, Blend: smooth"), "{smooth}");
        let ring = line(json!({"prompt": "a", "seamless": true}));
        assert!(ring.ends_with(", Loop closure: false, Blend: smooth, Seamless: true"), "{ring}");
        let unipc = line(json!({"prompt": "a", "scheduler": "unipc"}));
        assert!(unipc.contains("Sampler: UniPC,") && unipc.ends_with("Loop closure: false"), "{unipc}");
    }

    #[test]
    fn viewers_show_a_ring_all_around() {
        let xmp = |input| {
            let input = crate::input::parse(&input, None).unwrap().input;
            Metadata { input: &input, model: None }.xmp()
        };
        let ring = xmp(json!({"prompt": "a", "seamless": true, "width": 3072, "height": 512}));
        for (name, value) in [
            ("ProjectionType", "equirectangular"),
            ("FullPanoWidthPixels", "3072"),
            ("FullPanoHeightPixels", "1536"),
            ("CroppedAreaImageWidthPixels", "3072"),
            ("CroppedAreaImageHeightPixels", "512"),
            ("CroppedAreaLeftPixels", "0"),
            ("CroppedAreaTopPixels", "512"),
        ] {
            assert!(ring.contains(&format!("<GPano:{name}>{value}</GPano:{name}>")), "{ring}");
        }
        assert!(xmp(json!({"prompt": "a", "seamless": true, "width": 1024})).contains("GPano"), "as high as the whole");
        for other in [
            json!({"prompt": "a", "seamless": true, "width": 1024, "height": 640}),
            json!({"prompt": "a"}),
            json!({"prompt": "a", "loop_closure": true}),
        ] {
            assert!(!xmp(other).contains("GPano"));
        }
    }

    #[test]
    fn prompts_cannot_break_out_of_the_texts() {
        let prompt = "</Iptc4xmpExt:AIPromptInformation> & <x>\0\u{1}\r日本 🏔";
        let input = crate::input::parse(&json!({"prompt": prompt, "negative_prompt": "blur"}), None).unwrap().input;
        let metadata = Metadata { input: &input, model: Some(("demo & <co>", "abc")) };
        let xmp = metadata.xmp();
        let escaped = "&lt;/Iptc4xmpExt:AIPromptInformation&gt; &amp; &lt;x&gt;\u{fffd}\u{fffd}&#13;日本 🏔";
        assert!(xmp.contains(&format!("{escaped}\nNegative prompt: blur<")), "{xmp}");
        assert!(xmp.contains(">SyncDiffusion, demo &amp; &lt;co&gt;<") && !xmp.contains('\0'));
        assert!(!metadata.parameters().contains('\0'));
    }
}
