//! `multipart/form-data`: a body of texts and files.

use std::convert::Infallible;

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use futures_util::{FutureExt as _, stream};
use multer::{Field, Multipart};
use sha2::{Digest as _, Sha256};

/// The most parts of a form.
const MAX_PARTS: usize = 64;
/// The longest name of a part in bytes.
const MAX_NAME: usize = 255;

/// A form.
#[derive(Debug, Default)]
pub(crate) struct Form {
    pub(crate) parts: Vec<Part>,
}

/// A part of a form.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) name: String,
    /// It has the name of a file, or a type that does not begin with `text`.
    pub(crate) is_file: bool,
    pub(crate) bytes: Bytes,
}

/// What separates the parts of the body of a request, if it is a form.
///
/// # Errors
/// If nothing does.
pub(crate) fn boundary(headers: &HeaderMap) -> Option<Result<String, String>> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let is_form =
        kind.trim_start().get(.."multipart/".len()).is_some_and(|start| start.eq_ignore_ascii_case("multipart/"));
    is_form.then(|| multer::parse_boundary(kind).map_err(|error| format!("`Content-Type`: {error}")))
}

impl Form {
    /// Reads a whole body.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(crate) fn read(body: Vec<u8>, boundary: &str) -> Result<Self, String> {
        let whole = stream::iter([Ok::<_, Infallible>(Bytes::from(body))]);
        let mut parts = Multipart::new(whole, boundary);
        let mut form = Self::default();
        // Nothing has to be waited for: a form that ends too early is one that would wait for more.
        let early = || "it ends too early".to_owned();
        while let Some(part) =
            parts.next_field().now_or_never().ok_or_else(early)?.map_err(|error| error.to_string())?
        {
            if form.parts.len() == MAX_PARTS {
                return Err(format!("it has more than {MAX_PARTS} parts"));
            }
            let name = part.name().unwrap_or_default().to_owned();
            if name.is_empty() || name.len() > MAX_NAME {
                return Err(format!("the name of a part has 1 to {MAX_NAME} bytes"));
            }
            let is_file = is_file(&part);
            let bytes = part.bytes().now_or_never().ok_or_else(early)?.map_err(|error| error.to_string())?;
            form.parts.push(Part { name, is_file, bytes });
        }
        Ok(form)
    }

    /// A digest of what it says, which is the same however its parts are separated.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for Part { name, is_file, bytes } in &self.parts {
            for part in [name.as_bytes(), bytes] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
            hash.update([u8::from(*is_file)]);
        }
        hash.finalize().into()
    }
}

fn is_file(part: &Field<'_>) -> bool {
    part.file_name().is_some() || part.content_type().is_some_and(|kind| kind.type_() != "text")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(boundary: &str) -> Vec<u8> {
        format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na lake\r\n--{boundary}\r\nContent-Disposition: \
             form-data; name=\"image\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n\x00\r\n\r\n--{boundary}--\r\n"
        )
        .into_bytes()
    }

    #[test]
    fn texts_and_files_are_read() {
        let read = Form::read(form("X"), "X").unwrap();
        let parts: Vec<_> = read.parts.iter().map(|part| (part.name.as_str(), part.is_file, &part.bytes[..])).collect();
        assert_eq!(parts, [("prompt", false, &b"a lake"[..]), ("image", true, b"\x00\r\n")]);
        assert_eq!(read.digest(), Form::read(form("other"), "other").unwrap().digest());
        let mut more = form("X");
        more.splice(60..60, *b"\x20");
        assert_ne!(Form::read(more, "X").unwrap().digest(), read.digest());
    }

    #[test]
    fn what_is_no_form_is_refused() {
        let whole = form("X");
        for length in 0..whole.len() - 6 {
            assert!(Form::read(whole[..length].to_vec(), "X").is_err(), "{length}");
        }
        assert!(Form::read(whole, "Y").is_err());
        let part = "--X\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n1\r\n";
        assert!(Form::read(format!("{}--X--", part.repeat(MAX_PARTS)).into_bytes(), "X").is_ok());
        assert!(Form::read(format!("{}--X--", part.repeat(MAX_PARTS + 1)).into_bytes(), "X").is_err());
        assert!(Form::read(b"--X\r\nContent-Disposition: form-data\r\n\r\n1\r\n--X--".to_vec(), "X").is_err());
    }

    #[test]
    fn forms_are_known_by_their_type() {
        let of = |kind: &'static str| {
            boundary(&HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())])).map(Result::ok)
        };
        assert_eq!(of("multipart/form-data; boundary=X"), Some(Some("X".to_owned())));
        assert_eq!(of("Multipart/Form-Data; boundary=\"a b\""), Some(Some("a b".to_owned())));
        assert_eq!((of("multipart/form-data"), of("application/json")), (Some(None), None));
    }
}
