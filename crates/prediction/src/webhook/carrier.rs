//! One attempt to deliver a webhook: over HTTP, or in tests without it.

use std::pin::Pin;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Client;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::outgoing::{self, Gate};

/// How long a receiver may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest wait that a receiver may ask for.
const LONGEST_ASKED: Duration = Duration::from_hours(24);

/// A webhook that is ready to go.
#[derive(Clone, Debug)]
pub(super) struct Letter {
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

/// What an attempt comes to.
pub(super) type Carried<'a> = Pin<Box<dyn Future<Output = Result<(), Undelivered>> + Send + 'a>>;

/// Takes a letter to its receiver, once.
pub(super) trait Carrier: Send + Sync + 'static {
    fn carry(&self, letter: Letter) -> Carried<'_>;
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

impl Carrier for Http {
    fn carry(&self, Letter { url, headers, body }: Letter) -> Carried<'_> {
        Box::pin(async move {
            // It may have been stored when other addresses were allowed.
            let url = self.gate.check(&url).map_err(|refused| Undelivered::for_good(refused.to_string()))?;
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
    pub(super) fn for_good(why: String) -> Self {
        Self { again: false, after: None, why }
    }
}

/// What an answer means: taken, refused for good, or to be tried again.
pub(super) fn judge(status: u16, retry_after: Option<&str>) -> Result<(), Undelivered> {
    match status {
        200..300 => Ok(()),
        // These say that another time it may go well; 501 and 505 that it never will.
        408 | 425 | 429 | 500 | 502..=504 | 506..600 => {
            let after = retry_after.and_then(wait_asked);
            Err(Undelivered { again: true, after, why: format!("the receiver answered {status}") })
        }
        300..400 => Err(Undelivered::for_good(format!("the receiver answered {status}; redirects are not followed"))),
        _ => Err(Undelivered::for_good(format!("the receiver answered {status}"))),
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
    Some(wait.min(LONGEST_ASKED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        for taken in [200, 201, 202, 204] {
            assert_eq!(judge(taken, None), Ok(()));
        }
        for passing in [408, 425, 429, 500, 502, 503, 504, 520, 522, 530] {
            assert!(judge(passing, None).unwrap_err().again, "{passing}");
        }
        for final_one in [100, 301, 307, 400, 401, 404, 410, 422, 501, 505] {
            assert!(!judge(final_one, Some("5")).unwrap_err().again, "{final_one}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let asked = |text: &str| judge(503, Some(text)).unwrap_err().after;
        assert_eq!(asked("120"), Some(Duration::from_mins(2)));
        assert_eq!(asked(" 7200 "), Some(Duration::from_hours(2)));
        assert_eq!(asked("99999999"), Some(LONGEST_ASKED));
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
