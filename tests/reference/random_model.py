"""Makes a bundle with random weights: `random_model.py SIZE DIR`.

`full` has the exact shapes of Stable Diffusion 2 base (5 GB): 866 M parameters of UNet, 49.5 M of decoder, OpenCLIP ViT-H's text
encoder, VGG16. `small` is a tenth as wide (70 MB), with the same blocks, windows and attention. The tokenizer is the demo's.
"""

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from bundles import write_json
from perceptual import convolution_shapes

DEMO = Path(__file__).parents[2] / "models/demo"


@dataclass(frozen=True)
class Size:
    """What differs between the models; all else is Stable Diffusion 2's."""

    unet: list[int]
    heads: list[int]
    vae: list[int]
    text_width: int
    text_layers: int
    text_heads: int
    vgg: list[int]


SIZES = {
    "full": Size([320, 640, 1280, 1280], [5, 10, 20, 20], [128, 256, 512, 512], 1024, 23, 16, [64, 128, 256, 512, 512]),
    "small": Size([32, 64, 128, 128], [1, 2, 4, 4], [32, 32, 64, 64], 128, 3, 4, [8, 16, 32, 64, 64]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    size, out = SIZES[options.size], options.folder
    if (out / "complete").exists():
        return
    shutil.rmtree(out, ignore_errors=True)
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=64, block_out_channels=size.unet, cross_attention_dim=size.text_width, attention_head_dim=size.heads,
        use_linear_projection=True,
    ).save_pretrained(out / "unet")
    AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, block_out_channels=size.vae,
        layers_per_block=2, sample_size=768,
    ).save_pretrained(out / "vae")
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408, hidden_size=size.text_width, intermediate_size=4 * size.text_width, num_hidden_layers=size.text_layers,
            num_attention_heads=size.text_heads, hidden_act="gelu", projection_dim=size.text_width // 2,
        )
    ).save_pretrained(out / "text_encoder")
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    ).save_pretrained(out / "scheduler")
    shutil.copytree(DEMO / "tokenizer", out / "tokenizer")
    weights = {}
    for name, shape in convolution_shapes(size.vgg).items():
        weights[f"{name}.weight"] = torch.nn.init.kaiming_normal_(torch.empty(*shape, 3, 3))
        weights[f"{name}.bias"] = torch.zeros(shape[0])
    for stage, channels in enumerate(size.vgg):
        weights[f"lin{stage}.weight"] = torch.full((1, channels, 1, 1), 1 / channels)
    (out / "perceptual").mkdir()
    save_file(weights, out / "perceptual/model.safetensors")
    write_json(out / "perceptual/config.json", {"channels": size.vgg})
    # Last, so that an interrupted run is begun again.
    (out / "complete").touch()


if __name__ == "__main__":
    main()
