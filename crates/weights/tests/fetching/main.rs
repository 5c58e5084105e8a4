//! Fetching from a hub on loopback, well-behaved and otherwise.

mod bundle;
mod case;
mod hub;
mod perceptual;
mod resume;
