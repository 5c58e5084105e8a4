//! What a file is that is not what it should be, in one sentence, and what to do about it.

use safetensors::SafeTensors;
use serde_json::{Map, Value};

use super::error::{Error, Result};

/// Largest length of a header that is believed.
const MAX_HEADER: u64 = 100 << 20;

/// Why a file cannot be read as weights.
pub(crate) fn weights(file: &str, bytes: &[u8]) -> Error {
    let problem = foreign(bytes).or_else(|| cut(bytes)).unwrap_or_else(|| {
        let why = match SafeTensors::read_metadata(bytes) {
            Err(error) => error.to_string(),
            Ok(_) => "its header cannot be understood".to_owned(),
        };
        format!("is not a safetensors file: {why}; fetch it again")
    });
    Error::File { file: file.to_owned(), problem }
}

/// Parses JSON, with or without a byte order mark.
///
/// # Errors
/// If it is something else; the message says what.
pub(crate) fn json<T: serde::de::DeserializeOwned>(file: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(text(bytes)).map_err(|error| {
        let problem = foreign(bytes).unwrap_or_else(|| match bytes {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "is text in UTF-16; save it as UTF-8".to_owned(),
            _ => format!("is not the JSON that is expected: {error}"),
        });
        Error::File { file: file.to_owned(), problem }
    })
}

/// Text without its byte order mark.
pub(crate) fn text(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Files of another kind that end up under the name of one of ours.
fn foreign(bytes: &[u8]) -> Option<String> {
    let start = text(bytes).trim_ascii_start();
    let begins = |word: &[u8]| start.len() >= word.len() && start[..word.len()].eq_ignore_ascii_case(word);
    if bytes.is_empty() {
        return Some("is empty; fetch it again".to_owned());
    }
    if begins(b"version https://git-lfs") {
        return Some(
            "is a pointer of Git LFS and not the file itself; `git lfs install` and `git lfs pull` in the folder of the model \
             get it"
                .to_owned(),
        );
    }
    if begins(b"# xet version") {
        return Some("is a pointer of Xet and not the file itself; fetch the model again".to_owned());
    }
    if begins(b"<!doctype") || begins(b"<html") || begins(b"<?xml") {
        return Some(
            "is a web page and not the file itself; fetch it again, with a token if its page asks for one".to_owned(),
        );
    }
    // A zip archive, or the older protocol of pickle.
    if bytes.starts_with(b"PK\x03\x04") || (bytes[0] == 0x80 && bytes.get(1).is_some_and(|protocol| *protocol < 6)) {
        return Some(format!("is a pickle of PyTorch under another name; {PICKLE}"));
    }
    bytes.starts_with(b"GGUF").then(|| "is a GGUF file; only safetensors are read".to_owned())
}

/// What to do with a pickle.
pub(crate) const PICKLE: &str = "such files can run code and are not read: save the model as safetensors, with \
    `pipe.save_pretrained(FOLDER, safe_serialization=True)` of diffusers or with a converter you trust";

/// What other families are told.
pub(crate) const FAMILIES: &str = "this program draws with Stable Diffusion 1 and 2 only";

/// Whether a file of safetensors ends before its last tensor.
fn cut(bytes: &[u8]) -> Option<String> {
    let length = u64::from_le_bytes(*bytes.first_chunk()?);
    if length > MAX_HEADER || bytes.get(8) != Some(&b'{') {
        return None;
    }
    let header = 8 + length as usize;
    let again = "it was not fetched to its end; fetch it again";
    let Some(text) = bytes.get(8..header) else {
        return Some(format!("is cut short: it has {} bytes of at least {header}; {again}", bytes.len()));
    };
    let tensors: Map<String, Value> = serde_json::from_slice(text).ok()?;
    let mut ends =
        tensors.iter().filter(|(name, _)| *name != "__metadata__").map(|(_, info)| info["data_offsets"][1].as_u64());
    let all = header as u64 + ends.try_fold(0, |most, end| Some(end?.max(most)))?;
    (all > bytes.len() as u64).then(|| format!("is cut short: it has {} bytes of {all}; {again}", bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_kind_is_named() {
        let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let file = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
        let cases: [(&[u8], &str); 9] = [
            (b"", "is empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "pointer of Git LFS"),
            (b"\n<!DOCTYPE html>", "web page"),
            (b"PK\x03\x04...", "pickle"),
            (b"\x80\x02}q\x00", "pickle"),
            (b"GGUF", "GGUF"),
            (b"some other text", "not a safetensors file"),
            (&file[..file.len() - 1], "has 65 bytes of 66"),
            (&file[..20], "has 20 bytes of at least 62"),
        ];
        for (bytes, says) in cases {
            let error = weights("unet/x.safetensors", bytes).to_string();
            assert!(error.starts_with("`unet/x.safetensors` is ") && error.contains(says), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_json() {
        assert_eq!(json::<Value>("a.json", b"\xef\xbb\xbf{\"a\":1}").unwrap()["a"], 1);
        assert!(json::<Value>("a.json", b"\xff\xfe{\0}\0").unwrap_err().to_string().contains("UTF-16"));
        assert!(json::<Value>("a.json", b"{").unwrap_err().to_string().contains("`a.json` is not the JSON"));
    }
}
