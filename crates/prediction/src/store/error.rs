//! Why a store could not do what it was asked to.

/// A store could not do what it was asked to. Nothing of it was done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine failed; the same call may work later.
    #[error("the store failed: {0}")]
    Engine(String),
    /// There is no room on the disk, or none that may be used for what is new.
    #[error("the store is full: {0}")]
    Full(String),
    /// What was stored cannot be read.
    #[error("the store holds a record that cannot be read: {0}")]
    Corrupt(String),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}
