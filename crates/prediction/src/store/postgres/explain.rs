//! What a failure of PostgreSQL means, and what to do about it.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::store::error::StoreError;

/// A call that failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) error: StoreError,
    /// Whether it may have been done all the same: the connection was lost before the answer came.
    pub(super) unknown: bool,
    /// Whether others were in the way: nothing of it was done, and it may work at once.
    pub(super) again: bool,
}

impl Failure {
    pub(super) fn before(error: StoreError) -> Self {
        Self { error, unknown: false, again: false }
    }

    pub(super) fn of(error: Error) -> Self {
        let again = error.code().is_some_and(|code| {
            *code == SqlState::T_R_DEADLOCK_DETECTED || *code == SqlState::T_R_SERIALIZATION_FAILURE
        });
        Self { unknown: ends_connection(&error), again, error: error.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::of(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::before(error)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// Whether the connection cannot be used after this error, or its server is not one that may write.
pub(super) fn ends_connection(error: &Error) -> bool {
    error.as_db_error().is_none_or(|error| {
        let code = error.code();
        // A pooler tells by class 08 that it has lost its server.
        matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
            || ["57P", "08"].iter().any(|class| code.code().starts_with(class))
            || *code == SqlState::READ_ONLY_SQL_TRANSACTION
    })
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        if let Some(said) = error.as_db_error() {
            return explain(said);
        }
        let text = chain(&error);
        let advice = advice(&text).map(|advice| format!("; {advice}")).unwrap_or_default();
        Self::Engine(format!("the database does not answer: {text}{advice}"))
    }
}

fn explain(said: &DbError) -> StoreError {
    let message = said.message();
    let advice = match *said.code() {
        SqlState::DISK_FULL => {
            return StoreError::Full(format!(
                "the disk of the database is full: {message}; make room on it, or delete predictions, whose room can be \
                used after a vacuum"
            ));
        }
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "check the user and the password in the URL, and `pg_hba.conf` of the server"
        }
        SqlState::INVALID_CATALOG_NAME => "make it with `createdb`, or name another one in the URL",
        SqlState::INSUFFICIENT_PRIVILEGE => {
            "let the user own the database, or give it the rights that docs/fleet.md lists"
        }
        SqlState::READ_ONLY_SQL_TRANSACTION => {
            "this is a standby; name the primary in the URL (some providers also forbid writes when the disk is full)"
        }
        SqlState::LOCK_NOT_AVAILABLE => "somebody uses the tables, perhaps to dump them; start again when that is over",
        SqlState::TOO_MANY_CONNECTIONS => "raise `max_connections`, or put PgBouncer before the server",
        _ => return StoreError::Engine(format!("the database refuses: {message}")),
    };
    StoreError::Engine(format!("the database refuses: {message}; {advice}"))
}

/// What to do about a connection that could not be made.
fn advice(text: &str) -> Option<&'static str> {
    let known = [
        ("server does not support TLS", "switch TLS on there (`ssl`), or add `sslmode=disable` to the URL"),
        ("UnknownIssuer", "name the certificate of its authority in the URL: `sslrootcert=FILE`"),
        ("not valid for name", "use a name of its certificate in the URL"),
        ("password missing", "write the password into the URL"),
        ("does not allow writes", "no host of the URL is a primary"),
    ];
    known.iter().find_map(|(words, advice)| text.contains(words).then_some(*advice))
}

/// An error with its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
