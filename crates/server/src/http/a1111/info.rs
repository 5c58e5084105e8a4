//! What is said of pictures beside them.

use prediction::Prediction;
use prediction::given_pictures::told;
use prediction::output::Metadata;
use protocol::{Input, Scheduler};
use serde_json::{Value, json};

use super::lists::SAMPLERS;

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

/// `info`: JSON as a text.
pub(super) fn info(prediction: &Prediction, (width, height): (u32, u32)) -> String {
    let input = &prediction.input;
    let model = prediction.model.as_deref().zip(prediction.version.as_deref());
    let each: Vec<Input> = (0..input.num_outputs).map(|n| input.of_picture(n)).collect();
    // URLs that lead to pictures are not told; their hashes are in the picture.
    let texts: Vec<String> =
        each.iter().map(|input| Metadata { input: &told(input, &[]), model }.parameters()).collect();
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
