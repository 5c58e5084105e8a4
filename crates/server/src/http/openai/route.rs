//! The two routes for pictures.

/// Which route pictures are asked for at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Generations,
    Edits,
}

impl Route {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Generations => "/v1/images/generations",
            Self::Edits => "/v1/images/edits",
        }
    }

    /// What the names of its events begin with.
    pub(super) fn event(self) -> &'static str {
        match self {
            Self::Generations => "image_generation",
            Self::Edits => "image_edit",
        }
    }
}
