//! One attempt to deliver a webhook: over HTTP, or without a network in tests.

use std::pin::Pin;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Client;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::outgoing::{self, Gate};

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest wait that is granted to a receiver.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// A request that is ready to be sent: where to, signed headers, and the prediction as JSON.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// Why an attempt failed, and whether another is worth it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Undelivered {
    /// Whether to try again.
    pub(super) again: bool,
    /// How long the receiver asks to wait.
    pub(super) after: Option<Duration>,
    /// In words, without secrets.
    pub(super) why: String,
}

/// An attempt that is being made.
pub(super) type Sending<'a> = Pin<Box<dyn Future<Output = Result<(), Undelivered>> + Send + 'a>>;

/// Makes one attempt to deliver.
pub(super) trait Transport: Send + Sync + 'static {
    fn send(&self, delivery: Delivery) -> Sending<'_>;
}

/// HTTP. Redirects are not followed: what is signed for one address is not shown to another.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    gate: Gate,
}

impl Http {
    pub(super) fn new(gate: Gate) -> Result<Self, reqwest::Error> {
        Ok(Self { client: gate.client(TIMEOUT)?, gate })
    }
}

impl Transport for Http {
    fn send(&self, Delivery { url, headers, body }: Delivery) -> Sending<'_> {
        Box::pin(async move {
            // It may have been stored when other addresses were allowed.
            let url = self.gate.check(&url).map_err(|refused| Undelivered::permanent(refused.to_string()))?;
            match self.client.post(url).headers(headers).body(body).send().await {
                Ok(response) => {
                    let asked = response.headers().get(RETRY_AFTER).and_then(|asked| asked.to_str().ok());
                    judge(response.status().as_u16(), asked)
                }
                Err(error) => {
                    let again = !outgoing::was_refused(&error);
                    Err(Undelivered { again, after: None, why: outgoing::reason(error) })
                }
            }
        })
    }
}

impl Undelivered {
    pub(super) fn permanent(why: String) -> Self {
        Self { again: false, after: None, why }
    }
}

/// What an answer means: accepted, refused, or to be tried again.
pub(super) fn judge(status: u16, retry_after: Option<&str>) -> Result<(), Undelivered> {
    match status {
        200..300 => Ok(()),
        // These may pass; 501 and 505 never do.
        408 | 425 | 429 | 500 | 502..=504 | 506..600 => {
            let after = retry_after.and_then(wait_asked);
            Err(Undelivered { again: true, after, why: format!("the receiver answered {status}") })
        }
        300..400 => Err(Undelivered::permanent(format!("the receiver answered {status}; redirects are not followed"))),
        _ => Err(Undelivered::permanent(format!("the receiver answered {status}"))),
    }
}

/// `Retry-After`: seconds, or a date.
fn wait_asked(text: &str) -> Option<Duration> {
    let text = text.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        Duration::try_from(date.duration_since(Timestamp::now())).unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        for accepted in [200, 201, 202, 204] {
            assert_eq!(judge(accepted, None), Ok(()));
        }
        for transient in [408, 425, 429, 500, 502, 503, 504, 520, 522, 530] {
            assert!(judge(transient, None).unwrap_err().again, "{transient}");
        }
        for permanent in [100, 301, 307, 400, 401, 404, 410, 422, 501, 505] {
            assert!(!judge(permanent, Some("5")).unwrap_err().again, "{permanent}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let asked = |text: &str| judge(503, Some(text)).unwrap_err().after;
        assert_eq!(asked("120"), Some(Duration::from_mins(2)));
        assert_eq!(asked(" 7200 "), Some(Duration::from_hours(2)));
        assert_eq!(asked("99999999"), Some(MAX_RETRY_AFTER));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let soon = Timestamp::now() + jiff::SignedDuration::from_secs(600);
        let soon = soon.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let soon = asked(soon.as_str()).unwrap();
        assert!((590..=600).contains(&soon.as_secs()), "{soon:?}");
        for none in ["", "soon", "-1", "1.5"] {
            assert_eq!(asked(none), None, "{none}");
        }
    }
}
