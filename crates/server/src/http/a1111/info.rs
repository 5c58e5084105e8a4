//! What is said of pictures beside them.

use prediction::Prediction;
use prediction::given_pictures::{hash, told};
use prediction::output::Metadata;
use prediction::store::StoreError;
use protocol::{Input, Scheduler};
use serde_json::{Value, json};

use super::lists::SAMPLERS;
use crate::http::state::App;

/// The sampler of an input by the name of this API.
fn sampler(input: &Input) -> &'static str {
    match input.scheduler {
        Scheduler::Ddim => SAMPLERS[0].0,
        Scheduler::UniPc => SAMPLERS[1].0,
        Scheduler::DpmPp2m => SAMPLERS[2].0,
    }
}

/// The parameters of the request, as far as they were read.
pub(super) fn parameters(input: &Input, (width, height): (u32, u32)) -> Value {
    json!({
        "batch_size": input.num_outputs,
        "cfg_scale": input.guidance_scale,
        "denoising_strength": input.strength,
        "height": height,
        "n_iter": 1,
        "negative_prompt": input.negative_prompt,
        "prompt": input.prompt,
        "sampler_name": sampler(input),
        "seed": input.seed,
        "steps": input.num_inference_steps,
        "width": width,
    })
}

/// The hashes of the pictures that an input names, by field, as the metadata of its pictures have them.
pub(super) async fn hashes(app: &App, input: &Input) -> Result<Vec<(String, String)>, StoreError> {
    let mut hashes = Vec::new();
    for (field, url) in [("anchor_image", &input.anchor_image), ("image", &input.image)] {
        let Some((_, name)) = url.as_deref().and_then(|url| url.rsplit_once("/files/")) else { continue };
        if let Some(bytes) = app.service.file(name).await? {
            hashes.push((field.to_owned(), hash(&bytes)));
        }
    }
    Ok(hashes)
}

/// `info`: JSON as a text, with the hashes of the pictures that were given.
pub(super) fn info(prediction: &Prediction, (width, height): (u32, u32), hashes: &[(String, String)]) -> String {
    let input = &prediction.input;
    let model = prediction.model.as_deref().zip(prediction.version.as_deref());
    let each: Vec<Input> = (0..input.num_outputs).map(|n| told(&input.of_picture(n), hashes)).collect();
    let texts: Vec<String> = each.iter().map(|input| Metadata { input, model }.parameters()).collect();
    json!({
        "all_negative_prompts": vec![&input.negative_prompt; each.len()],
        "all_prompts": vec![&input.prompt; each.len()],
        "all_seeds": each.iter().map(|input| input.seed).collect::<Vec<_>>(),
        "batch_size": each.len(),
        "cfg_scale": input.guidance_scale,
        "denoising_strength": input.strength,
        "height": height,
        "index_of_first_image": 0,
        "infotexts": texts,
        "job_timestamp": prediction.created_at,
        "negative_prompt": input.negative_prompt,
        "prompt": input.prompt,
        "sampler_name": sampler(input),
        "sd_model_hash": model.map(|(_, version)| version.get(..10).unwrap_or(version)),
        "sd_model_name": prediction.model,
        "seed": input.seed,
        "steps": input.num_inference_steps,
        "width": width,
    })
    .to_string()
}
