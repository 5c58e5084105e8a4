//! Weights that fit nothing: what they are, in one sentence, where that can be seen.

use safetensors::Dtype;

use super::error::Error;

/// What a tensor of a file is called and made of.
pub(crate) struct Seen<'a> {
    pub(crate) name: &'a str,
    pub(crate) dtype: Dtype,
}

/// Names that trainers leave in a network: of LoRA, as peft, diffusers and kohya write them.
const LORA: [&str; 6] = ["base_layer", "lora_A", "lora_B", "lora_down", "lora_up", "_lora."];

/// Names that quantisation leaves in a network, of `bitsandbytes` and others.
const QUANTISED: [&str; 7] =
    [".absmax", ".quant_map", ".quant_state", ".nested_absmax", ".SCB", ".weight_scale", "scaled_fp8"];

/// What wrappers of PyTorch put before all names: of several devices, and of compiled networks.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// What all tensors of a file say of it that no list of names would.
pub(crate) fn explain<'a>(file: &str, tensors: &(impl Iterator<Item = Seen<'a>> + Clone)) -> Option<Error> {
    let count = |is: &dyn Fn(&Seen) -> bool| tensors.clone().filter(|seen| is(seen)).count();
    let says = |problem: String| Some(Error::File { file: file.to_owned(), problem });
    let lora = count(&|seen| LORA.iter().any(|part| seen.name.contains(part)));
    if lora > 0 {
        return says(format!(
            "has a LoRA left inside, {lora} tensors of it; merge it before saving (`pipe.fuse_lora()`, then \
             `pipe.unload_lora_weights()`), or give the LoRA as a file of its own with `--lora`"
        ));
    }
    // In a file that is read as a checkpoint it is only what has no other name.
    let original = count(&|seen| seen.name.starts_with("model.diffusion_model."));
    if original > 1 && original > tensors.clone().count() / 4 {
        return says(
            "is a whole checkpoint in one file and not this part of a folder; name the file itself as the model"
                .to_owned(),
        );
    }
    for wrapper in WRAPPERS {
        if tensors.clone().next().is_some() && tensors.clone().all(|seen| seen.name.starts_with(wrapper)) {
            return says(format!(
                "has names that all begin with `{wrapper}`, which a wrapper of PyTorch put there; save the network \
                 inside the wrapper"
            ));
        }
    }
    let quantised = count(&|seen| QUANTISED.iter().any(|part| seen.name.contains(part)));
    let small = tensors.clone().filter(|seen| !readable(seen.dtype) && !index(seen)).map(|seen| seen.dtype);
    let small: Vec<Dtype> = small.collect();
    match (small.first(), quantised) {
        (None, 0) => None,
        (None, _) => says(format!("is quantised ({quantised} tensors say how); give it in F32, F16 or BF16")),
        (Some(dtype), _) => {
            says(format!("has {} tensors in {dtype:?}, which is not read; give it in F32, F16 or BF16", small.len()))
        }
    }
}

/// The dtypes that weights are read from.
pub(crate) fn readable(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
}

/// Tables and counters that old files keep beside the weights.
fn index(seen: &Seen) -> bool {
    matches!(seen.dtype, Dtype::I64 | Dtype::I32) && !seen.name.ends_with(".weight")
}
