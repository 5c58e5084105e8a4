//! Sizes and durations as people write them: one grammar for all flags, and for the header `Cancel-After`.
//!
//! A size is a number, perhaps with a fraction, and a unit: `1000`, `512MiB`, `10 GB`, `1.5g`. A duration is a number
//! of seconds, perhaps with a fraction, or whole numbers with units: `90`, `0.5`, `30s`, `1m30s`, `7d`.

use std::time::Duration;

/// The longest duration that is accepted; every clock can still count it.
const MAX_DURATION: Duration = Duration::from_hours(24 * 365 * 100);

/// A duration.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if text.parse::<u64>().is_err() => {
            let duration = Duration::try_from_secs_f64(seconds).map_err(|_| not_a_duration(text))?;
            limited(text, duration)
        }
        _ => whole_duration(text),
    }
}

/// A duration without fractions, as Replicate writes them in headers.
pub(crate) fn whole_duration(text: &str) -> Result<Duration, String> {
    let wrong = || not_a_duration(text);
    if let Ok(seconds) = text.parse() {
        return limited(text, Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let (unit, factor) = [("ms", 0), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400)]
            .into_iter()
            .find(|(unit, _)| rest[digits..].starts_with(unit))
            .ok_or_else(wrong)?;
        let part = if factor == 0 {
            Duration::from_millis(number)
        } else {
            Duration::from_secs(number.checked_mul(factor).ok_or_else(wrong)?)
        };
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = &rest[digits + unit.len()..];
    }
    if text.is_empty() { Err(wrong()) } else { limited(text, total) }
}

/// A duration that is not zero.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.is_zero() { Err("write more than 0, such as `30s`".to_owned()) } else { Ok(duration) }
}

fn not_a_duration(text: &str) -> String {
    format!("`{text}` is not a duration; write `90`, `30s`, `1m30s`, `2h` or `7d`")
}

fn limited(text: &str, duration: Duration) -> Result<Duration, String> {
    if duration > MAX_DURATION { Err(format!("`{text}` is more than 100 years")) } else { Ok(duration) }
}

/// A number of bytes.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a number of bytes; write `1000000`, `512MiB` or `1.5GB`");
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000_u64.pow(2),
        "gb" => 1000_u64.pow(3),
        "tb" => 1000_u64.pow(4),
        "kib" | "ki" | "k" => 1 << 10,
        "mib" | "mi" | "m" => 1 << 20,
        "gib" | "gi" | "g" => 1 << 30,
        "tib" | "ti" | "t" => 1 << 40,
        _ => return Err(wrong()),
    };
    if let Ok(number) = number.parse::<u64>() {
        return number.checked_mul(factor).ok_or_else(wrong);
    }
    let product = number.parse::<f64>().map_err(|_| wrong())? * factor as f64;
    if product < u64::MAX as f64 { Ok(product as u64) } else { Err(wrong()) }
}

/// A number of bytes that is not zero.
pub(crate) fn positive_bytes(text: &str) -> Result<u64, String> {
    let bytes = bytes(text)?;
    if bytes == 0 { Err("write more than 0, such as `20GiB`".to_owned()) } else { Ok(bytes) }
}

/// A whole number.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "write a whole number, 0 or more".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7d"), Ok(Duration::from_hours(7 * 24)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        let bad = ["", "x", "1x", "s", "5m3", "-1", "-0.5", "1.5h", ".", "NaN", "inf", "1e30", "36501d", "9999999999"];
        for bad in bad.into_iter().chain(["99999999999999999999d", "99999999999.5"]) {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(whole_duration("0.25").is_err() && whole_duration("90") == duration("90"));
        assert!(positive_duration("0").is_err() && positive_duration("0.0").is_err());
    }

    #[test]
    fn sizes() {
        for (text, read) in [
            ("77", 77),
            ("10GB", 10_000_000_000),
            ("512MiB", 512 << 20),
            ("800 MiB", 800 << 20),
            ("10Gi", 10 << 30),
            ("1Ki", 1024),
            ("1.5g", 3 << 29),
            ("0", 0),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(bytes(text), Ok(read), "{text}");
        }
        for bad in ["", "GB", "1XB", "-1GiB", "1..5g", ".", "6 bananas", "99999999999TiB", "1e30"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert!(positive_bytes("0.2").is_err() && positive_bytes("1") == Ok(1));
    }
}
