//! The embedded demo model, so that a first panorama needs no download; see `models/demo/README.md`.

use sd2::Bundle;

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo/", $path)))),*]
    };
}

const FILES: &[(&str, &[u8])] = files![
    "model_index.json",
    "perceptual/config.json",
    "perceptual/model.safetensors",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

pub(crate) fn bundle() -> Bundle {
    Bundle::embedded(FILES)
}
