//! Multistep solvers: a picture in fewer steps than DDIM needs, for they remember what earlier steps predicted.
//!
//! | scheduler | source | diffusers' name |
//! |---|---|---|
//! | `unipc` | Zhao et al., "UniPC", arXiv 2302.04867 | `UniPCMultistepScheduler` |
//! | `dpmpp_2m` | Lu et al., "DPM-Solver++", arXiv 2211.01095, algorithm 2 | `DPMSolverMultistepScheduler` |
//!
//! Each is what `from_config` of diffusers' class makes of the scheduler file of a model: with that class's timesteps,
//! defaults and treatment of a terminal SNR of zero, which differ from those of [DDIM](crate::ddim). [`Multistep`]
//! reads the file, [`Solver`] steps.

mod multistep;
mod solver;

use crate::ddim::Step;

pub use self::multistep::Multistep;
pub use self::solver::Solver;

/// How the latents get from one noise level to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduler {
    /// DDIM.
    #[default]
    Ddim,
    /// UniPC.
    UniPc,
    /// DPM-Solver++ 2M.
    DpmPp2m,
}

/// The steps of one picture.
pub struct Schedule {
    /// From noise to picture.
    pub steps: Vec<Step>,
    /// What takes these steps; `None` where each is its own [`Step::next`].
    pub solver: Option<Solver>,
}

#[cfg(test)]
mod tests;
