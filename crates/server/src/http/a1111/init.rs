//! What a request for `img2img` has besides: a picture, and how far it is drawn again.

use prediction::given_pictures::{Fill, Fitting};
use prediction::input::Given;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::errors::Fault;
use crate::http::common::{Pictures, Scalar};

/// How far a picture is drawn again where a request does not say it.
const STRENGTH: f64 = 0.75;

/// Keys of this API.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Init {
    init_images: Pictures,
    mask: Pictures,
    pub(super) denoising_strength: Scalar,
    resize_mode: Scalar,
}

impl Init {
    /// Has the inputs be what is asked for, and says how the picture is laid into what is drawn: if a size is given, it
    /// fills it.
    pub(super) fn apply(self, given: &mut Given, inputs: &mut Map<String, Value>) -> Result<Fitting, Fault> {
        if self.mask.count > 0 {
            let message = "parts of a picture cannot be drawn again; leave `mask` out";
            return Err(Fault::invalid(format!("`mask`: {message}")));
        }
        let own = usize::from(inputs.get("image").is_some_and(Value::is_string));
        match (self.init_images.count + own, self.init_images.first) {
            (0, _) => return Err(Fault::invalid("`init_images`: the picture is missing")),
            (1, Some(picture)) => picture.put(inputs, &mut given.sent),
            (1, None) if own == 1 => {}
            (1, None) => return Err(Fault::invalid("`init_images`: send the picture as base64")),
            (several, _) => {
                return Err(Fault::invalid(format!("`init_images`: {several} pictures were sent; send one")));
            }
        }
        inputs.entry("strength").or_insert_with(|| STRENGTH.into());
        let is_sized = inputs.contains_key("width") && inputs.contains_key("height");
        // 0 and 3 stretch, 1 crops; 2 draws what is missing beside the picture.
        let mode = if self.resize_mode.is_absent() { Some(0) } else { self.resize_mode.whole() };
        let fill = match mode {
            Some(0 | 3) => Some(Fill::Stretch),
            Some(1) => Some(Fill::Cut),
            Some(2) => None,
            _ => return Err(Fault::invalid("`resize_mode`: use a whole number from 0 to 3")),
        };
        Ok(Fitting { fill: fill.filter(|_| is_sized), redraw: None })
    }
}
