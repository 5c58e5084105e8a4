//! The name of the file, and the format that goes with it.

use std::path::{Path, PathBuf};

use anyhow::bail;
use protocol::Format;
use serde_json::{Map, Value};

/// The name of the file without its end, where none is given.
const NAME: &str = "out";
/// The input that says which format.
const FORMAT: &str = "output_format";

/// Inputs with the format that the name of the file says, where they say none; and the name, where none is given, with
/// the end of the format. An input that is not valid stays as it is: it is refused later.
pub(super) fn named(
    mut inputs: Map<String, Value>,
    output: Option<PathBuf>,
) -> anyhow::Result<(Map<String, Value>, PathBuf)> {
    let wanted = inputs.get(FORMAT).map(|format| serde_json::from_value::<Format>(format.clone()).ok());
    let Some(output) = output else {
        let format = wanted.flatten().unwrap_or_default();
        return Ok((inputs, Path::new(NAME).with_extension(format.extension())));
    };
    match (wanted, format_of(&output)) {
        (Some(Some(wanted)), Some(named)) if wanted != named => bail!(
            "`{}` has the end of another format than `--output-format {}`; leave one of them out",
            output.display(),
            serde_json::to_value(wanted)?.as_str().unwrap_or_default()
        ),
        (None, Some(named)) if named != Format::default() => {
            inputs.insert(FORMAT.to_owned(), serde_json::to_value(named)?);
        }
        _ => {}
    }
    Ok((inputs, output))
}

/// The names of several files: that of one with the numbers of pictures before its end.
pub(super) fn numbered(output: &Path, count: u32) -> Vec<PathBuf> {
    if count == 1 {
        return vec![output.to_owned()];
    }
    let stem = output.file_stem().unwrap_or_default();
    let name = |n: u32| {
        let mut name = stem.to_owned();
        name.push(format!("-{n}"));
        if let Some(end) = output.extension() {
            name.push(".");
            name.push(end);
        }
        output.with_file_name(name)
    };
    (0..count).map(name).collect()
}

/// The format that a name ends in.
fn format_of(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "png" => Some(Format::Png),
        "jpg" | "jpeg" => Some(Format::Jpeg),
        "webp" => Some(Format::Webp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn several_files_have_numbers() {
        let names = |output: &str, count| {
            let names = numbered(Path::new(output), count).into_iter().map(|name| name.display().to_string());
            names.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names("a/b.c.png", 1), "a/b.c.png");
        assert_eq!(names("a/b.c.png", 2), "a/b.c-0.png a/b.c-1.png");
        assert_eq!(names("x", 2), "x-0 x-1");
    }

    #[test]
    fn name_and_format_go_together() {
        for (format, output, expected) in [
            (None, None, Some(("png", "out.png"))),
            (Some("jpeg"), None, Some(("jpeg", "out.jpg"))),
            (Some("webp"), None, Some(("webp", "out.webp"))),
            (None, Some("a/b.JPG"), Some(("jpeg", "a/b.JPG"))),
            (None, Some("b.jpeg"), Some(("jpeg", "b.jpeg"))),
            (None, Some("b.webp"), Some(("webp", "b.webp"))),
            (None, Some("b.png"), Some(("png", "b.png"))),
            (None, Some("picture"), Some(("png", "picture"))),
            (Some("jpeg"), Some("picture"), Some(("jpeg", "picture"))),
            (Some("jpeg"), Some("b.jpg"), Some(("jpeg", "b.jpg"))),
            (Some("gif"), Some("b.jpg"), Some(("gif", "b.jpg"))),
            (Some("jpeg"), Some("b.png"), None),
            (Some("png"), Some("b.webp"), None),
        ] {
            let inputs = format.map(|format| (FORMAT.to_owned(), json!(format))).into_iter().collect();
            let named = named(inputs, output.map(PathBuf::from)).ok();
            let shown = named.map(|(inputs, output)| {
                (inputs.get(FORMAT).cloned().unwrap_or(json!("png")), output.display().to_string())
            });
            let expected = expected.map(|(format, output)| (json!(format), output.to_owned()));
            assert_eq!(shown, expected, "{format:?} {output:?}");
        }
    }
}
