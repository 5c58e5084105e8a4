"""Makes a bundle with random weights in the exact shapes of Stable Diffusion 2 base: `full_size.py DIR` (5 GB).

866 M parameters of UNet, 49.5 M of decoder, OpenCLIP ViT-H's text encoder, VGG16. The tokenizer is the demo's.
"""

import shutil
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from bundles import write_json
from perceptual import convolution_shapes

DEMO = Path(__file__).parents[2] / "models/demo"
VGG16_CHANNELS = [64, 128, 256, 512, 512]


def main() -> None:
    out = Path(sys.argv[1])
    if (out / "complete").exists():
        return
    shutil.rmtree(out, ignore_errors=True)
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=64, cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True
    ).save_pretrained(out / "unet")
    AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, block_out_channels=[128, 256, 512, 512],
        layers_per_block=2, sample_size=768,
    ).save_pretrained(out / "vae")
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408, hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16, hidden_act="gelu",
            projection_dim=512,
        )
    ).save_pretrained(out / "text_encoder")
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    ).save_pretrained(out / "scheduler")
    shutil.copytree(DEMO / "tokenizer", out / "tokenizer")
    weights = {}
    for name, shape in convolution_shapes(VGG16_CHANNELS).items():
        weights[f"{name}.weight"] = torch.nn.init.kaiming_normal_(torch.empty(*shape, 3, 3))
        weights[f"{name}.bias"] = torch.zeros(shape[0])
    for stage, channels in enumerate(VGG16_CHANNELS):
        weights[f"lin{stage}.weight"] = torch.full((1, channels, 1, 1), 1 / channels)
    (out / "perceptual").mkdir()
    save_file(weights, out / "perceptual/model.safetensors")
    write_json(out / "perceptual/config.json", {"channels": VGG16_CHANNELS})
    # Last, so that an interrupted run is begun again.
    (out / "complete").touch()


if __name__ == "__main__":
    main()
