//! Why sending a picture failed.

/// Why an attempt failed, in words and without secrets.
pub(super) type Failure = http_client::Failure<String>;
