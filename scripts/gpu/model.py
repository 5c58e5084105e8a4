"""Makes a bundle with random weights in f16, drawn on the device: `model.py full|tiny FOLDER [--device cpu]`.

`full` has the exact shapes of Stable Diffusion 2 base and VGG16 (2.6 GB), `tiny` those of a model for a try on a CPU. Speed does not
depend on the values; that they are f16 means that f32, bf16 and f16 compute with the same numbers.
"""

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file

from perceptual import convolution_shapes

# Or guidance amplifies the output of a random network, and with it what rounding changes.
UNET_OUTPUT_SCALE = 0.15


@dataclass(frozen=True)
class Size:
    """What differs between the models; all else is Stable Diffusion 2's."""

    window: int
    unet: list[int]
    heads: list[int]
    vae: list[int]
    groups: int
    text_width: int
    text_layers: int
    text_heads: int
    vgg: list[int]


SIZES = {
    "full": Size(64, [320, 640, 1280, 1280], [5, 10, 20, 20], [128, 256, 512, 512], 32, 1024, 23, 16, [64, 128, 256, 512, 512]),
    "tiny": Size(16, [16, 32, 32, 32], [1, 2, 2, 2], [16, 16, 32, 32], 8, 32, 2, 2, [4, 8, 8, 12, 12]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a tokenizer to copy")
    options = parser.parse_args()
    size, out = SIZES[options.size], options.folder
    shutil.rmtree(out, ignore_errors=True)
    torch.manual_seed(0)
    with torch.device(options.device):
        unet = UNet2DConditionModel(
            sample_size=size.window, block_out_channels=size.unet, cross_attention_dim=size.text_width, attention_head_dim=size.heads,
            use_linear_projection=True, norm_num_groups=size.groups,
        )
        with torch.no_grad():
            unet.conv_out.weight *= UNET_OUTPUT_SCALE
        save_network(unet, out / "unet")
        save_network(
            AutoencoderKL(
                down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, block_out_channels=size.vae,
                layers_per_block=2, sample_size=768, norm_num_groups=size.groups,
            ),
            out / "vae",
        )
        save(text_encoder(size), out / "text_encoder/model.safetensors")
        save(perceptual_network(size), out / "perceptual/model.safetensors")
    write_json(out / "text_encoder/config.json", {
        "architectures": ["CLIPTextModel"], "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "hidden_act": "gelu",
        "hidden_size": size.text_width, "intermediate_size": 4 * size.text_width, "layer_norm_eps": 1e-5, "max_position_embeddings": 77,
        "model_type": "clip_text_model", "num_attention_heads": size.text_heads, "num_hidden_layers": size.text_layers,
        "vocab_size": 49408,
    })
    write_json(out / "perceptual/config.json", {"channels": size.vgg})
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    ).save_pretrained(out / "scheduler")
    shutil.copytree(options.tokenizer, out / "tokenizer")
    print(json.dumps({"record": "model", "size": options.size, "folder": str(out)}))


def save_network(network: torch.nn.Module, folder: Path) -> None:
    network.save_config(folder)
    save(network.state_dict(), folder / "diffusion_pytorch_model.safetensors")


def save(weights: dict[str, torch.Tensor], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.half().cpu().contiguous() for name, weight in weights.items()}, file)


def text_encoder(size: Size) -> dict[str, torch.Tensor]:
    """The weights of a `CLIPTextModel`."""
    width, weights = size.text_width, {}

    def linear(name: str, inputs: int, outputs: int) -> None:
        weights[f"text_model.{name}.weight"] = 0.02 * torch.randn(outputs, inputs)
        weights[f"text_model.{name}.bias"] = torch.zeros(outputs)

    def norm(name: str) -> None:
        weights[f"text_model.{name}.weight"], weights[f"text_model.{name}.bias"] = torch.ones(width), torch.zeros(width)

    weights["text_model.embeddings.token_embedding.weight"] = 0.02 * torch.randn(49408, width)
    weights["text_model.embeddings.position_embedding.weight"] = 0.02 * torch.randn(77, width)
    for layer in (f"encoder.layers.{i}" for i in range(size.text_layers)):
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{layer}.self_attn.{projection}", width, width)
        linear(f"{layer}.mlp.fc1", width, 4 * width)
        linear(f"{layer}.mlp.fc2", 4 * width, width)
        norm(f"{layer}.layer_norm1")
        norm(f"{layer}.layer_norm2")
    norm("final_layer_norm")
    return weights


def perceptual_network(size: Size) -> dict[str, torch.Tensor]:
    weights = {}
    for name, shape in convolution_shapes(size.vgg).items():
        weights[f"{name}.weight"] = torch.nn.init.kaiming_normal_(torch.empty(*shape, 3, 3))
        weights[f"{name}.bias"] = torch.zeros(shape[0])
    for stage, channels in enumerate(size.vgg):
        weights[f"lin{stage}.weight"] = torch.full((1, channels, 1, 1), 1 / channels)
    return weights


def write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
