//! The names of what is in a bundle.

/// The lock of a bundle. It is written last, so a bundle that has one is complete.
pub const LOCK: &str = "weights.lock";
/// The folder of a fetch that is not complete.
pub(crate) const WORK: &str = ".fetch";
/// The perceptual network.
pub(crate) const NETWORK: &str = "perceptual/model.safetensors";
/// The files of weights: folder and stem.
pub(crate) const WEIGHTS: [(&str, &str); 3] =
    [("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")];
/// Files that every bundle has.
pub(crate) const REQUIRED: [&str; 4] =
    ["unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"];
/// The tokenizer: the first file alone, or both others.
pub(crate) const TOKENIZER: [&str; 3] = ["tokenizer/tokenizer.json", "tokenizer/vocab.json", "tokenizer/merges.txt"];
/// Files that a bundle has if the repository has them.
pub(crate) const OPTIONAL: [&str; 7] = [
    "tokenizer/added_tokens.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "model_index.json",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
];
