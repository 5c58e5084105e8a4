//! What a fetch reports while it runs.

/// A step of a fetch. Paths are relative to the bundle.
#[derive(Clone, Copy, Debug)]
pub enum ProgressEvent<'a> {
    /// A file is begun, perhaps again.
    Begun {
        /// Its path.
        path: &'a str,
        /// Its size in bytes.
        size: u64,
        /// Bytes that are on the disk already.
        have: u64,
    },
    /// More of a file was received.
    Received {
        /// Its path.
        path: &'a str,
        /// Bytes that are on the disk now.
        have: u64,
    },
    /// A file is complete and has its final name.
    Done {
        /// Its path.
        path: &'a str,
    },
    /// Something that people should read.
    Note(&'a str),
}

/// Receives the steps of a fetch. It is called from one task, often, and must not block.
pub trait Progress: Send + Sync {
    /// Receives a step.
    fn report(&self, event: ProgressEvent<'_>);
}

/// Ignores all steps.
impl Progress for () {
    fn report(&self, _: ProgressEvent<'_>) {}
}
