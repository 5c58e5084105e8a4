//! Layers and blocks that the networks share, and the tape between forward and backward passes.

pub(crate) mod gradient_scale;
pub(crate) mod layers;
pub(crate) mod resnet;
pub(crate) mod strips;
pub(crate) mod tape;
pub(crate) mod upsample;
