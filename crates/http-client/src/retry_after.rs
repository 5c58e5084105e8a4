//! The header `Retry-After` (RFC 9110, section 10.2.3).

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// How long a server asks to wait: a number of seconds, or the time until a date. A date in the past means zero.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_or_a_date() {
        let read = |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]));
        assert_eq!(read("120"), Some(Duration::from_mins(2)));
        assert_eq!(read(" 7200 "), Some(Duration::from_hours(2)));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_mins(10));
        let wait = read(&soon).unwrap();
        assert!((590..=600).contains(&wait.as_secs()), "{wait:?}");
        for unreadable in ["", "soon", "-1", "1.5"] {
            assert_eq!(read(unreadable), None, "{unreadable}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
