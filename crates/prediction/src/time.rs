//! Timestamps in the format of the wire: RFC 3339, UTC, microseconds, `+00:00`.
//!
//! Every parser accepts six digits and a numeric offset, even `datetime.fromisoformat` of old Pythons.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(Timestamp);

impl Time {
    /// Now.
    pub fn now() -> Self {
        Self(Timestamp::now())
    }

    /// Seconds from an earlier point to this one, to the microsecond, so that they are the same when they are read
    /// again; 0 if it is later.
    pub fn since(self, earlier: Self) -> f64 {
        self.0.duration_since(earlier.0).as_micros().max(0) as f64 / 1e6
    }

    /// The time after a duration.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        Self(self.0.saturating_add(wait).unwrap_or(self.0))
    }

    /// The duration from now to this time; zero if it is past.
    pub fn remaining(self) -> Duration {
        Duration::try_from(self.0.duration_since(Timestamp::now())).unwrap_or_default()
    }

    /// Microseconds since 1970, for the store.
    pub fn micros(self) -> i64 {
        self.0.as_microsecond()
    }

    /// The time at a number of microseconds after 1970, or the nearest one that can be represented.
    pub fn from_micros(micros: i64) -> Self {
        Self(Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}", self.0.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00"))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map(Self).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let time = Time::from_micros(1_795_500_480_140_349);
        let text = serde_json::to_string(&time).unwrap();
        assert_eq!(text, "\"2026-11-24T06:08:00.140349+00:00\"");
        assert_eq!(serde_json::from_str::<Time>(&text).unwrap(), time);
        assert_eq!(time.micros(), 1_795_500_480_140_349);
    }
}
