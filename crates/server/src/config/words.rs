//! Words of flags, as people type them.

use axum::http::Uri;

/// `--dtype`, in the worker's word.
pub(super) fn dtype(text: &str) -> Result<String, String> {
    let word = match text.trim().to_ascii_lowercase().as_str() {
        "auto" => "auto",
        "f32" | "fp32" | "float32" | "float" | "single" | "full" => "f32",
        "f16" | "fp16" | "float16" | "half" => "f16",
        "bf16" | "bfloat16" | "bfloat" => "bf16",
        _ => return Err("use `auto`, `f32`, `bf16` or `f16`".to_owned()),
    };
    Ok(word.to_owned())
}

/// A device, in the worker's word.
pub(super) fn device(text: &str) -> Result<String, String> {
    let word = text.trim().to_ascii_lowercase();
    let numbered = || word.strip_prefix("cuda:").is_some_and(|number| number.parse::<usize>().is_ok());
    if ["auto", "cpu", "cuda"].contains(&word.as_str()) || numbered() {
        return Ok(word);
    }
    Err(match word.as_str() {
        "gpu" | "nvidia" => "use `cuda` for the first GPU, or `cuda:N`".to_owned(),
        _ => "use `auto`, `cpu`, `cuda` or `cuda:N`".to_owned(),
    })
}

/// A switch.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "y" | "on" | "t" => Ok(true),
        "false" | "0" | "no" | "n" | "off" | "f" => Ok(false),
        _ => Err("use `true` or `false`".to_owned()),
    }
}

/// An address that clients can follow: something is appended to it.
pub(super) fn web_url(text: &str) -> Result<String, String> {
    let text = text.trim();
    let wrong = || "write it with `http://` or `https://`, such as `https://panorama.example.com`".to_owned();
    let url: Uri = text.parse().map_err(|_| wrong())?;
    let known = matches!(url.scheme_str(), Some("http" | "https"));
    if !known || url.host().is_none_or(str::is_empty) {
        return Err(wrong());
    }
    if url.query().is_some() || text.contains('#') || url.authority().is_some_and(|named| named.as_str().contains('@'))
    {
        return Err("write it without `?`, `#` and `@`: paths are appended to it".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_everybody_types_is_accepted() {
        for (typed, word) in
            [("fp16", "f16"), ("half", "f16"), ("Float32", "f32"), ("bfloat16", "bf16"), ("f16", "f16")]
        {
            assert_eq!(dtype(typed).as_deref(), Ok(word));
        }
        for typed in ["auto", "CPU", "cuda", "cuda:1"] {
            assert_eq!(device(typed), Ok(typed.to_ascii_lowercase()));
        }
        for (typed, on) in [("1", true), ("yes", true), ("ON", true), ("0", false), ("no", false), ("False", false)] {
            assert_eq!(switch(typed), Ok(on));
        }
        assert!(device("gpu").unwrap_err().contains("`cuda`"));
        for wrong in ["int8", "fp8", "16", ""] {
            assert!(dtype(wrong).is_err() && device(wrong).is_err() && switch(wrong).is_err(), "{wrong}");
        }
        assert!(device("cuda:x").is_err() && device("cuda:").is_err());
    }

    #[test]
    fn a_url_can_be_followed() {
        for valid in ["http://localhost:5000", "https://panorama.example.com/pano/", "http://[::1]:5000"] {
            assert_eq!(web_url(valid).as_deref(), Ok(valid));
        }
        for wrong in [
            "panorama.example.com",
            "ftp://x",
            "https://a b/",
            "https://",
            "/pano",
            "http://x?y",
            "http://x#y",
            "http://u@x",
        ] {
            assert!(web_url(wrong).is_err(), "{wrong}");
        }
    }
}
