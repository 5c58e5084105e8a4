//! Flags and the environment, parsed once into plain structs.
//!
//! No other file reads the environment, and this folder does it in two places: each flag names its variable, and
//! `environment` reads those that do not belong to a flag. What libraries and the worker read by themselves (proxies,
//! `OTEL_*`, CUDA's variables) is left to them.

mod access;
mod doctor;
mod environment;
mod evaluate;
mod generate;
mod limits;
mod loading;
mod model_name;
mod models;
mod outputs;
mod serve;
mod telemetry;
mod weights;
mod words;
mod worker;

pub(crate) use access::Access;
pub(crate) use doctor::Doctor;
pub(crate) use evaluate::Evaluate;
pub(crate) use generate::Generate;
pub(crate) use limits::Limits;
pub(crate) use model_name::ModelName;
pub(crate) use serve::{ExitWithoutWorkers, Serve};
pub(crate) use telemetry::{LogFormat, Telemetry};
pub(crate) use weights::{Fetch, Perceptual, Smaller, Verify, Weights};
pub(crate) use worker::WorkerArgs;
