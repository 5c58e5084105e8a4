//! The configuration beside a file, as far as it is read.

use std::path::Path;

/// The configuration that AUTOMATIC1111's tools look for: `NAME.yaml` beside `NAME.safetensors`.
pub(super) fn beside(path: &Path) -> Option<String> {
    ["yaml", "yml"].iter().find_map(|end| std::fs::read_to_string(path.with_extension(end)).ok())
}

/// The value after `key:` on a line of its own. These files are flat enough for that.
pub(super) fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let value = line.trim().strip_prefix(key)?.trim_start().strip_prefix(':')?;
        let value = value.split('#').next().unwrap_or(value);
        Some(value.trim().trim_matches(['"', '\'']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_yaml_are_read() {
        let text = "model:\n  params:\n    parameterization: \"v\" # as trained\n    num_heads : 4\n";
        assert_eq!(value_of(text, "parameterization"), Some("v"));
        assert_eq!(value_of(text, "num_heads"), Some("4"));
        assert_eq!(value_of(text, "heads"), None);
    }
}
