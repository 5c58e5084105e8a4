//! Pictures that flags name: files, which are read before any work.

use std::fs;
use std::path::Path;

use prediction::given_pictures::{Pixels, decode, hash, misplaced};
use prediction::input::{Geometry, Invalid, Kind, MAX_PICTURE, TABLE};
use protocol::{Given, Input};
use serde_json::{Map, Value};

/// What the input has in place of a file.
const HEAD: &str = "data:;base64,";

/// The pictures of a job.
#[derive(Debug, Default)]
pub(super) struct Pictures {
    /// Fields and sizes, as a worker is told.
    pub(super) given: Vec<Given>,
    /// Their pixels, one after the other.
    pub(super) rgb: Vec<u8>,
    /// Fields and hashes, for the metadata.
    pub(super) hashes: Vec<(String, String)>,
}

impl Pictures {
    /// Reads the files that inputs name; the inputs then say that there is a picture.
    pub(super) fn read(inputs: &mut Map<String, Value>) -> Result<Self, Vec<Invalid>> {
        let (mut pictures, mut errors) = (Self::default(), Vec::new());
        for field in TABLE.iter().filter(|field| field.kind == Kind::Picture) {
            let Some(said) = inputs.get_mut(field.name) else { continue };
            match file(said.as_str().unwrap_or_default()) {
                Ok((Pixels { width, height, rgb }, hash)) => {
                    pictures.given.push(Given { field: field.name.to_owned(), width, height });
                    pictures.rgb.extend(rgb);
                    pictures.hashes.push((field.name.to_owned(), hash));
                    *said = HEAD.into();
                }
                Err(message) => errors.push(invalid(field.name, message)),
            }
        }
        if errors.is_empty() { Ok(pictures) } else { Err(errors) }
    }

    /// Why they cannot be what an input says of them.
    pub(super) fn misplaced(&self, input: &Input, geometry: Geometry) -> Vec<Invalid> {
        let why = |given: &Given| {
            let (field, message) = misplaced(input, geometry, &given.field, (given.width, given.height))?;
            Some(invalid(field, message))
        };
        self.given.iter().filter_map(why).collect()
    }
}

fn invalid(field: &str, message: String) -> Invalid {
    Invalid { field: field.to_owned(), message, kind: "value_error" }
}

/// Reads a file, and its hash.
fn file(path: &str) -> Result<(Pixels, String), String> {
    let unread =
        |error: &dyn std::fmt::Display| format!("cannot read `{path}`: {error}; name a PNG, JPEG or WebP file");
    if ["http://", "https://", "data:"].iter().any(|scheme| path.starts_with(scheme)) && !Path::new(path).exists() {
        return Err("on the command line a picture is a file; save it, and name the file".to_owned());
    }
    let size = fs::metadata(path).map_err(|error| unread(&error))?.len();
    if size > MAX_PICTURE as u64 {
        return Err(unread(&format!("it has more than the maximum of {} MiB", MAX_PICTURE >> 20)));
    }
    let bytes = fs::read(path).map_err(|error| unread(&error))?;
    Ok((decode(&bytes)?, hash(&bytes)))
}
