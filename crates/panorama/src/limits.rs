//! How much is computed at once.

use sd2::Checkpointing;

use crate::task::Stage;

/// How many tasks go in a batch, by their stage, and how a gradient is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Windows whose UNet output is computed at once.
    pub denoise: usize,
    /// Windows whose gradient is computed at once.
    pub synchronise: usize,
    /// Whether a gradient recomputes activations to save memory.
    pub checkpointing: Checkpointing,
}

/// One window at a time, which fits everywhere.
impl Default for Limits {
    fn default() -> Self {
        Self { denoise: 1, synchronise: 1, checkpointing: Checkpointing::Off }
    }
}

impl Limits {
    /// The most tasks of a stage in one batch.
    pub fn of(&self, stage: Stage) -> usize {
        match stage {
            Stage::Denoise => self.denoise,
            Stage::Synchronise => self.synchronise,
            Stage::Target | Stage::Decode => 1,
        }
    }
}
