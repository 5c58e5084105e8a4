//! SyncDiffusion: coherent panoramas by synchronised joint diffusions.
//!
//! Lee et al., "SyncDiffusion: Coherent Montage via Synchronized Joint Diffusions", arXiv 2306.05178, exactly as the
//! authors' code computes it, its quirks included. A panorama is a bag of overlapping windows: in each step every
//! window takes a DDIM step of its own and the results are averaged where they overlap. In the first steps each window
//! is moved, before that, so that the picture it is heading for looks more like the one of the window in the middle,
//! the *anchor*, or like a picture that was given ([`Sources`]).
//!
//! [`Panorama`] is one job as a state machine: it returns [`Task`]s of one [`Stage`] and takes their [`Outcome`]s.
//! [`Engine`] owns the networks and computes batches of tasks, which may belong to different panoramas.
//! [`run()`] drives a single panorama to its end.
//!
//! The schedule does the least work that gives the same picture: the anchor is forwarded once, nothing is synchronised
//! that would not move, and a guidance branch without influence is not computed.

mod canvas;
mod engine;
mod evaluation;
mod kept;
mod limits;
mod panorama;
mod picture;
mod preview;
pub mod range;
mod run;
mod settings;
mod sources;
mod task;
mod windows;

pub use engine::{Engine, unusable, without_encoder};
pub use evaluation::{Figures, figures};
pub use limits::{Limits, Widths};
pub use panorama::{DecodePlan, Panorama, Progress, Work};
pub use picture::Picture;
pub use preview::Preview;
pub use run::run;
pub use sd2::Checkpointing;
pub use sd2::schedulers::Scheduler;
pub use settings::{Blend, Invalid, Settings, SyncMode};
pub use sources::{Sources, texts};
pub use task::{Outcome, Stage, Task};
