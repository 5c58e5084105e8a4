"""Pictures of one window from a bundle, many prompts at once: to look at while it trains, and to compare bundles."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image, ImageDraw
from transformers import CLIPTextModel, CLIPTokenizer

from . import tokenizer

PROMPTS = (
    "a photo of a mountain range at twilight",
    "natural landscape in anime style illustration",
    "a film photo of a beachfront with palm trees",
    "a photo of a snowy mountain",
    "a photo of a grassland",
    "silhouette wallpaper of a dreamy scene with shooting stars",
    "a photo of a city skyline at night",
    "a photo of a forest with a misty fog",
    "a watercolor painting of a lake in autumn",
    "an oil painting of desert dunes at sunset",
    "a photo of a mountain lake at dawn",
    "a landscape",
)


class Sampler:
    """A bundle of the diffusers layout, all of it in f32."""

    def __init__(self, bundle: Path):
        self.tokenizer = CLIPTokenizer.from_pretrained(bundle / "tokenizer")
        self.text = CLIPTextModel.from_pretrained(bundle / "text_encoder").float().eval()
        self.unet = UNet2DConditionModel.from_pretrained(bundle / "unet").float().eval()
        self.vae = AutoencoderKL.from_pretrained(bundle / "vae").float().eval()
        self.scheduler = DDIMScheduler.from_pretrained(bundle / "scheduler")

    @torch.no_grad()
    def draw(self, prompts: list[str], seed: int, steps: int = 25, guidance: float = 5.0, size: int = 64) -> np.ndarray:
        """uint8 [prompts, 8 size, 8 size, 3]; all prompts start from the noise of one seed."""
        generator = torch.Generator().manual_seed(seed)
        latents = torch.randn(1, 4, size, size, generator=generator).repeat(len(prompts), 1, 1, 1)
        ids = torch.from_numpy(tokenizer.encode(self.tokenizer, [""] * len(prompts) + list(prompts)))
        states = self.text(ids).last_hidden_state
        self.scheduler.set_timesteps(steps)
        for t in self.scheduler.timesteps:
            empty, wanted = (self.unet(latents, t, encoder_hidden_states=half).sample for half in states.chunk(2))
            latents = self.scheduler.step(empty + guidance * (wanted - empty), t, latents).prev_sample
        pictures = torch.cat([self.vae.decode(z[None] / self.vae.config.scaling_factor).sample for z in latents])
        return ((pictures / 2 + 0.5).clamp(0, 1) * 255 + 0.5).byte().permute(0, 2, 3, 1).numpy()


def sheet(pictures: list[np.ndarray], labels: list[str], columns: int, width: int = 256) -> Image.Image:
    """Pictures in rows, each `width` pixels wide, under its label."""
    cells = []
    for picture, label in zip(pictures, labels, strict=True):
        image = Image.fromarray(picture)
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
        cell = Image.new("RGB", (width, image.height + 14), "white")
        cell.paste(image, (0, 14))
        ImageDraw.Draw(cell).text((3, 1), label[: width // 6], fill="black")
        cells.append(cell)
    height = max(cell.height for cell in cells)
    out = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), "white")
    for k, cell in enumerate(cells):
        out.paste(cell, (k % columns * width, k // columns * height))
    return out
