//! The algorithm.
