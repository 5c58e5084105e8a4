//! One attempt to deliver a webhook: over HTTP, or without a network in tests.

use std::pin::Pin;
use std::time::Duration;

use http_client::{has_cause, reason, retry_after};
use reqwest::Client;
use reqwest::header::HeaderMap;

use crate::outgoing::{Gate, Refused};

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

/// Why an attempt failed, in words and without secrets.
pub(super) type Failure = http_client::Failure<String>;

/// An attempt that is being made.
pub(super) type Sending<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

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
            let url = self.gate.check(&url).map_err(|refused| Failure::permanent(refused.to_string()))?;
            match self.client.post(url).headers(headers).body(body).send().await {
                Ok(response) => judge(response.status().as_u16(), retry_after(response.headers())),
                Err(error) => {
                    let transient = !has_cause::<Refused>(&error);
                    Err(Failure { error: reason(error), transient, retry_after: None })
                }
            }
        })
    }
}

/// What an answer means: accepted, refused, or to be tried again.
pub(super) fn judge(status: u16, retry_after: Option<Duration>) -> Result<(), Failure> {
    match status {
        200..300 => Ok(()),
        // These may pass; 501 and 505 never do.
        408 | 425 | 429 | 500 | 502..=504 | 506..600 => {
            let retry_after = retry_after.map(|wait| wait.min(MAX_RETRY_AFTER));
            Err(Failure { retry_after, ..Failure::transient(format!("the receiver answered {status}")) })
        }
        300..400 => Err(Failure::permanent(format!("the receiver answered {status}; redirects are not followed"))),
        _ => Err(Failure::permanent(format!("the receiver answered {status}"))),
    }
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
            assert!(judge(transient, None).unwrap_err().transient, "{transient}");
        }
        for permanent in [100, 301, 307, 400, 401, 404, 410, 422, 501, 505] {
            assert!(!judge(permanent, Some(Duration::from_secs(5))).unwrap_err().transient, "{permanent}");
        }
    }

    #[test]
    fn receivers_may_ask_for_a_day_at_most() {
        let after = |hours| judge(503, Some(Duration::from_hours(hours))).unwrap_err().retry_after;
        assert_eq!((after(2), after(48)), (Some(Duration::from_hours(2)), Some(MAX_RETRY_AFTER)));
    }
}
