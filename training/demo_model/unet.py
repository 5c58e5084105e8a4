"""The UNet: learns to tell noise from latents, first of half the size, which shows it five times as many scenes in the same time."""

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file

from . import captions, text, tokenizer, vae
from .loop import Recipe, Ring, train
from .work import Work

# No attention at 64x64, which is what makes it fast.
CONFIG = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [64, 64, 96, 128],
    "layers_per_block": 1,
    "cross_attention_dim": 128,
    "attention_head_dim": [2, 2, 3, 4],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
    "norm_num_groups": 16,
}
# The betas of SD2, rescaled so that the last step is pure noise. Unscaled, they leave a trace of the mean of the latent there; the
# model would learn to read the colours of a scene from it, but when it draws, that trace is missing.
SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}
CAPTIONS = 6
"""The number of captions for each scene."""


def caption_tokens(work: Work) -> np.ndarray:
    """The tokens of the scenes' captions: uint16 [scenes, CAPTIONS, 77]."""
    path = work.data / "captions.npy"
    if not path.exists():
        words, texts = tokenizer.load(work), []
        for k, scene in enumerate(work.scenes()):
            rng = np.random.default_rng([6, k])
            texts += [captions.caption(rng, scene)[0] for _ in range(CAPTIONS)]
        np.save(path, tokenizer.encode(words, texts).astype(np.uint16).reshape(-1, CAPTIONS, 77))
    return np.load(path, mmap_mode="r")


def run(ring: Ring, work: Work, stage: str, count: int, size: int, batch: int, recipe: Recipe, onward: bool):
    """Trains on the first `count` latents of pictures of `size`, from the bundle's UNet if `onward`, and writes the bundle's `unet` and `scheduler`."""
    latents, tokens = vae.latents(work, size)[:count], caption_tokens(work)
    empty = torch.from_numpy(tokenizer.encode(tokenizer.load(work), [""])[0])
    encoder = text.load(work).to(ring.device)
    scheduler = DDIMScheduler(**SCHEDULE)
    alphas = scheduler.alphas_cumprod.to(ring.device)
    # Min-SNR-5 in terms of v (https://arxiv.org/abs/2303.09556).
    weights = torch.minimum(torch.ones_like(alphas), 6 * (1 - alphas))
    torch.manual_seed(0)
    model = UNet2DConditionModel(**CONFIG).to(ring.device)
    if onward:
        model.load_state_dict(load_file(work.bundle / "unet" / "diffusion_pytorch_model.safetensors"))

    def loss(step: int, rng: np.random.Generator):
        n = ring.share(batch)
        # Sorted, for the disk's sake.
        i = np.sort(rng.integers(0, count, n))
        z = torch.from_numpy(latents[i].astype(np.float32))
        z = torch.where(torch.rand(n, 1, 1, 1) < 0.5, z.flip(-1), z).to(ring.device)
        ids = torch.from_numpy(tokens[i, rng.integers(0, CAPTIONS, n)].astype(np.int64))
        ids[torch.rand(n) < 0.1] = empty  # for guidance
        with torch.no_grad():
            states = encoder(ids.to(ring.device)).last_hidden_state
        # One step of each equal part of the schedule: less chance in the loss.
        t = ((torch.arange(n) + torch.rand(n)) * (len(alphas) / n)).long().to(ring.device)
        noise, a = torch.randn_like(z), alphas[t][:, None, None, None]
        noised, target = a.sqrt() * z + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * z
        error = (model(noised, t, encoder_hidden_states=states).sample - target).square().mean((1, 2, 3))
        x0 = (error * (1 - alphas[t])).detach()
        shown = {f"x0 at {low}": float(x0[(t >= low) & (t < low + 250)].mean()) for low in (0, 250, 500, 750)}
        return (error * weights[t]).mean(), shown

    mean = train(stage, ring, model, recipe, work.checkpoints / f"{stage}.pt", loss)
    if ring.rank == 0:
        mean.half().save_pretrained(work.bundle / "unet")
        scheduler.save_pretrained(work.bundle / "scheduler")
