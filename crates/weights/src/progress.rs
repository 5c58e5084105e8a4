//! What a fetch tells while it runs.

/// A piece of news. Paths are relative to the bundle.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// A file is begun, or begun anew.
    Begun {
        /// Its path.
        path: &'a str,
        /// Its size in bytes.
        size: u64,
        /// How many of them are there already.
        have: u64,
    },
    /// More of a file is there.
    Received {
        /// Its path.
        path: &'a str,
        /// How many bytes are there now.
        have: u64,
    },
    /// A file is there under its final name.
    Done {
        /// Its path.
        path: &'a str,
    },
    /// Something that people should read.
    Note(&'a str),
}

/// Hears the news. It is called from one task, often, and must not block.
pub trait Progress: Send + Sync {
    /// Takes a piece of news.
    fn tell(&self, news: News<'_>);
}

/// Hears nothing.
impl Progress for () {
    fn tell(&self, _: News<'_>) {}
}
