//! The binary syncdiffusion.
