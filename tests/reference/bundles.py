"""Makes small Stable Diffusion 2 bundles with random weights, each in another of the shapes in which real ones come.

- `epsilon`: the block layout and the old configuration files of SD2-base: a PNDM scheduler config, no scaling factor, old names in the
  VAE's attention, `text_model.` before the text encoder's names, a tokenizer whose two files disagree on the padding token.
- `v`: the block layout of the demo model: v-prediction, convolutions round the transformers, one number of heads for all blocks,
  quick GELU, a tokenizer that pads with the end token; fp16 weights, under `.fp16.` file names only.
- `sd1`: the layout of Stable Diffusion 1.5: convolutions round the transformers, one number of heads, quick GELU, padding with the
  end token, a PNDM scheduler; only its networks are compared.
- `sharded`: two blocks, bf16 weights, the UNet in two shards with an index.

Weights are drawn so that activations keep their size through the networks; no bias is zero and no norm trivial. No UNet
is narrower than 8 channels: a layer norm over 4 amplifies rounding up to a hundredfold where they happen to be nearly equal.
"""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from perceptual import Lpips, convolution_shapes

TEXT_LENGTH = 77
MERGES = 62  # of the demo model's tokenizer; the first 512 entries of its vocabulary are the bytes
PERCEPTUAL_CHANNELS = [4, 8, 8, 12, 12]
# Standard deviation of a decoded picture in -1..1: high in contrast, with a few pixels for the clamp to cut.
CONTRAST = 0.36
# LPIPS of two pictures of decoded noise: a sync weight means about the same in every bundle.
DISTANCE = 3.0
# Keeps the sampling loop from amplifying rounding, as a random network with an output of full size would under guidance.
UNET_OUTPUT_SCALE = 0.15
START, END = "<|startoftext|>", "<|endoftext|>"

OLD_ATTENTION_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


@dataclass(frozen=True)
class Bundle:
    """What one bundle is made of: the configuration files as they are written, and how the weights are stored."""

    text_encoder: dict
    unet: dict
    vae: dict
    scheduler: dict
    padding: dict[str, str]  # by tokenizer file
    dtype: torch.dtype
    text_prefix: str = ""
    old_vae_names: bool = False
    variant: str = ""
    shards: int = 1


def text_config(**changes) -> dict:
    return {
        "architectures": ["CLIPTextModel"], "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
        "dropout": 0.0, "hidden_act": "gelu", "hidden_size": 16, "initializer_factor": 1.0, "initializer_range": 0.02,
        "intermediate_size": 32, "layer_norm_eps": 1e-05, "max_position_embeddings": TEXT_LENGTH, "model_type": "clip_text_model",
        "num_attention_heads": 2, "num_hidden_layers": 2, "projection_dim": 16, "torch_dtype": "float32",
        "transformers_version": "4.25.0.dev0", "vocab_size": 512 + MERGES + 2,
    } | changes


def unet_config(down_blocks: list[str], **changes) -> dict:
    return {
        "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.8.0", "act_fn": "silu", "center_input_sample": False,
        "cross_attention_dim": 16, "down_block_types": down_blocks,
        "up_block_types": [name.replace("Down", "Up") for name in reversed(down_blocks)],
        "downsample_padding": 1, "dual_cross_attention": False, "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4,
        "mid_block_scale_factor": 1, "norm_eps": 1e-05, "out_channels": 4, "sample_size": 16,
    } | changes


def vae_config(channels: list[int], layers: int, groups: int, **changes) -> dict:
    return {
        "_class_name": "AutoencoderKL", "_diffusers_version": "0.8.0", "act_fn": "silu", "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels), "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "in_channels": 3, "latent_channels": 4, "layers_per_block": layers, "norm_num_groups": groups, "out_channels": 3,
        "sample_size": 16 * 2 ** (len(channels) - 1),
    } | changes


BUNDLES = {
    "epsilon": Bundle(
        text_encoder=text_config(),
        unet=unet_config(
            ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            attention_head_dim=[1, 2, 4, 2], block_out_channels=[8, 8, 8, 8], layers_per_block=2, norm_num_groups=4,
            use_linear_projection=True,
        ),
        vae=vae_config([8, 8, 8], layers=1, groups=4),
        scheduler={
            "_class_name": "PNDMScheduler", "_diffusers_version": "0.8.0", **BETAS, "clip_sample": False,
            "prediction_type": "epsilon", "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
        },
        padding={"special_tokens_map.json": "!", "tokenizer_config.json": END},
        dtype=torch.float32,
        text_prefix="text_model.",
        old_vae_names=True,
    ),
    "v": Bundle(
        text_encoder=text_config(hidden_act="quick_gelu", num_hidden_layers=1, torch_dtype="float16", eos_token_id=512 + MERGES + 1),
        unet=unet_config(
            ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            attention_head_dim=2, block_out_channels=[8, 16, 16, 16], layers_per_block=1, norm_num_groups=8,
            use_linear_projection=False, upcast_attention=True,
        ),
        vae=vae_config([4, 4, 8, 8], layers=2, groups=2, scaling_factor=0.25),
        scheduler={
            "_class_name": "DDIMScheduler", "_diffusers_version": "0.42.1", **BETAS, "clip_sample": False,
            "prediction_type": "v_prediction", "set_alpha_to_one": False, "steps_offset": 1, "trained_betas": None,
            "timestep_spacing": "trailing", "thresholding": False, "rescale_betas_zero_snr": True,
        },
        padding={"special_tokens_map.json": END, "tokenizer_config.json": END},
        dtype=torch.float16,
        text_prefix="text_model.",
        variant="fp16",
    ),
    "sharded": Bundle(
        text_encoder=text_config(num_hidden_layers=1, torch_dtype="bfloat16"),
        unet=unet_config(
            ["CrossAttnDownBlock2D", "DownBlock2D"],
            attention_head_dim=[2, 2], block_out_channels=[16, 16], layers_per_block=1, norm_num_groups=8, use_linear_projection=True,
        ),
        vae=vae_config([8, 8, 8], layers=1, groups=4, scaling_factor=0.18215),
        scheduler={
            "_class_name": "DDIMScheduler", "_diffusers_version": "0.42.1", **BETAS, "clip_sample": False,
            "prediction_type": "epsilon", "set_alpha_to_one": False, "steps_offset": 1, "trained_betas": None,
            "timestep_spacing": "leading",
        },
        padding={"special_tokens_map.json": "!", "tokenizer_config.json": "!"},
        dtype=torch.bfloat16,
        shards=2,
    ),
}


# Those of which only the networks are compared, not whole panoramas.
NETWORKS = {
    "sd1": Bundle(
        text_encoder=text_config(hidden_act="quick_gelu", num_hidden_layers=3, projection_dim=12, torch_dtype="float32"),
        unet=unet_config(
            ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            attention_head_dim=4, block_out_channels=[8, 16, 16, 16], layers_per_block=2, norm_num_groups=4,
        ),
        vae=vae_config([8, 8, 8], layers=2, groups=4),
        scheduler={
            "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", **BETAS, "clip_sample": False, "set_alpha_to_one": False,
            "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
        },
        padding={"special_tokens_map.json": END, "tokenizer_config.json": END},
        dtype=torch.float32,
        text_prefix="text_model.",
        old_vae_names=True,
    ),
}


def write_bundle(name: str, folder: Path, seed: int, demo_tokenizer: Path) -> None:
    """Writes the bundle `name` of `BUNDLES` or `NETWORKS` into the new folder `folder`."""
    bundle, generator = (BUNDLES | NETWORKS)[name], torch.Generator().manual_seed(seed)
    shutil.rmtree(folder, ignore_errors=True)
    write_json(folder / "model_index.json", {
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.8.0",
        "scheduler": ["diffusers", bundle.scheduler["_class_name"]], "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    })
    write_json(folder / "scheduler" / "scheduler_config.json", bundle.scheduler)
    write_tokenizer(folder / "tokenizer", bundle, demo_tokenizer)

    text_encoder = draw_weights(CLIPTextModel(CLIPTextConfig(**bundle.text_encoder)), generator)
    text_encoder = {bundle.text_prefix + key.removeprefix("text_model."): weight for key, weight in text_encoder.items()}
    if name == "epsilon":
        text_encoder["text_model.embeddings.position_ids"] = torch.arange(TEXT_LENGTH)[None]
    write_network(folder / "text_encoder", "model", bundle.text_encoder, text_encoder, bundle)

    unet = draw_weights(UNet2DConditionModel.from_config(bundle.unet), generator)
    unet["conv_out.weight"] *= UNET_OUTPUT_SCALE
    write_network(folder / "unet", "diffusion_pytorch_model", bundle.unet, unet, bundle, bundle.shards)

    vae = draw_weights(AutoencoderKL.from_config(bundle.vae), generator)
    set_contrast(vae, bundle, generator)
    perceptual = draw_perceptual(generator)
    set_distance(perceptual, vae, bundle, generator)
    if bundle.old_vae_names:
        vae = {with_old_attention_name(key): weight for key, weight in vae.items()}
    write_network(folder / "vae", "diffusion_pytorch_model", bundle.vae, vae, bundle)

    write_json(folder / "perceptual" / "config.json", {"channels": PERCEPTUAL_CHANNELS})
    save_file(perceptual, folder / "perceptual" / "model.safetensors")


def draw_weights(network: torch.nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Random weights for every parameter of a network: variance 1/inputs, norms near 1, biases and embeddings small."""
    norms = {name for name, module in network.named_modules() if isinstance(module, (torch.nn.GroupNorm, torch.nn.LayerNorm))}
    weights = {}
    for name, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith(".bias"):
            weights[name] = 0.1 * noise
        elif name.removesuffix(".weight") in norms:
            weights[name] = 1 + 0.2 * noise
        elif name.endswith("embedding.weight"):
            weights[name] = 0.5 * noise
        else:
            weights[name] = noise / math.sqrt(parameter[0].numel())
    return weights


@torch.no_grad()
def set_contrast(vae: dict[str, torch.Tensor], bundle: Bundle, generator: torch.Generator) -> None:
    """Scales the last convolution of a VAE so that decoded noise has the standard deviation CONTRAST."""
    scale = CONTRAST / decode_noise(vae, bundle, generator).std()
    vae["decoder.conv_out.weight"] *= scale
    vae["decoder.conv_out.bias"] *= scale


@torch.no_grad()
def set_distance(perceptual: dict[str, torch.Tensor], vae: dict[str, torch.Tensor], bundle: Bundle, generator: torch.Generator) -> None:
    """Scales the linear layers of a perceptual network so that two pictures of decoded noise have the distance DISTANCE."""
    a, b = (decode_noise(vae, bundle, generator).clamp(-1, 1) for _ in range(2))
    scale = DISTANCE / Lpips(PERCEPTUAL_CHANNELS, perceptual)(a, b).item()
    for stage in range(len(PERCEPTUAL_CHANNELS)):
        perceptual[f"lin{stage}.weight"] *= scale


def decode_noise(vae: dict[str, torch.Tensor], bundle: Bundle, generator: torch.Generator) -> torch.Tensor:
    network = AutoencoderKL.from_config(bundle.vae).eval()
    network.load_state_dict(vae)
    latent = torch.randn(1, 4, 16, 16, generator=generator) / network.config.scaling_factor
    return network.decode(latent).sample


def draw_perceptual(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Random weights of the perceptual network: linear layers that are never negative, and biases far above 0.

    Those keep feature vectors away from 0, where dividing by their length would blow rounding up, and leave few features so near 0 that
    rounding changes the side of their ReLU; one in six is cut all the same.
    """
    weights = {}
    for name, (outputs, inputs) in convolution_shapes(PERCEPTUAL_CHANNELS).items():
        weights[f"{name}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) * math.sqrt(0.5 / (9 * inputs))
        weights[f"{name}.bias"] = 2 + 0.1 * torch.randn(outputs, generator=generator)
    for stage, channels in enumerate(PERCEPTUAL_CHANNELS):
        weights[f"lin{stage}.weight"] = torch.rand(1, channels, 1, 1, generator=generator)
    return weights


def with_old_attention_name(key: str) -> str:
    """A VAE weight's name as files before 2023 have it: `mid_block.attentions.0.query.weight`."""
    for new, old in OLD_ATTENTION_NAMES.items():
        key = key.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
    return key


def write_network(folder: Path, stem: str, config: dict, weights: dict[str, torch.Tensor], bundle: Bundle, shards: int = 1) -> None:
    write_json(folder / "config.json", config)
    weights = {
        key: (weight.to(bundle.dtype) if weight.is_floating_point() else weight).contiguous() for key, weight in sorted(weights.items())
    }
    if shards == 1:
        variant = f".{bundle.variant}" if bundle.variant else ""
        save_file(weights, folder / f"{stem}{variant}.safetensors", metadata={"format": "pt"})
        return
    keys, weight_map = list(weights), {}
    for shard in range(shards):
        file = f"{stem}-{shard + 1:05}-of-{shards:05}.safetensors"
        part = keys[shard * len(keys) // shards : (shard + 1) * len(keys) // shards]
        save_file({key: weights[key] for key in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    size = sum(weight.nbytes for weight in weights.values())
    write_json(folder / f"{stem}.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": weight_map})


def write_tokenizer(folder: Path, bundle: Bundle, demo_tokenizer: Path) -> None:
    """The demo model's tokenizer with fewer merges."""
    merges = (demo_tokenizer / "merges.txt").read_text().splitlines()[: 1 + MERGES]
    vocabulary = json.loads((demo_tokenizer / "vocab.json").read_text())
    vocabulary = dict(sorted(vocabulary.items(), key=lambda entry: entry[1])[: 512 + MERGES])
    vocabulary |= {START: 512 + MERGES, END: 512 + MERGES + 1}
    write_json(folder / "vocab.json", vocabulary, indent=None)
    (folder / "merges.txt").write_text("\n".join(merges) + "\n")

    def added(content: str) -> dict:
        return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}

    def special(file: str, **extra) -> dict:
        tokens = {"bos_token": START, "eos_token": END, "unk_token": END}
        return {key: {**extra, **added(token)} for key, token in tokens.items()} | {"pad_token": bundle.padding[file]}

    write_json(folder / "special_tokens_map.json", special("special_tokens_map.json"))
    write_json(folder / "tokenizer_config.json", {
        "add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": TEXT_LENGTH,
        "tokenizer_class": "CLIPTokenizer", **special("tokenizer_config.json", __type="AddedToken"),
    })


def write_json(path: Path, content: dict, indent: int | None = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=indent) + "\n")
