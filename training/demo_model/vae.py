"""The VAE: pictures to latents of an eighth of their size and back."""

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from torch import nn

from . import data
from .loop import Recipe, Ring, train
from .work import Progress, Work

CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [16, 16, 48, 64],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
SCALE = CONFIG["scaling_factor"]
JUDGED = 40

# Opponent colours (luminance, red against blue, green against magenta), each over its own deviation in the pictures.
OPPONENTS = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, -1.0], [-0.5, 1.0, -0.5]]) / torch.tensor([[0.55], [0.45], [0.14]])


class Trained(nn.Module):
    """The VAE, and a linear reading of a block's mean colour from its latent, without which the latent loses saturated greens."""

    def __init__(self):
        super().__init__()
        self.vae = AutoencoderKL(**CONFIG)
        self.colours = nn.Conv2d(4, 3, 1)


def as_input(pictures: np.ndarray) -> torch.Tensor:
    """uint8 [n, h, w, 3] to float32 [n, 3, h, w] in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def differences(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """How far the steps from pixel to pixel are apart: what makes edges sharp."""
    d = a - b
    return (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()


def likeness(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """What a decoded picture `y` should have of `x`: values, edges, and colours apart from the light, also in the mean of blocks."""
    d = y - x
    chroma, green = d - d.mean(1, keepdim=True), d[:, 1] - (d[:, 0] + d[:, 2]) / 2
    blocks = F.avg_pool2d(d, 8).abs().mean() + F.avg_pool2d(chroma, 8).abs().mean()
    return d.abs().mean() + 0.5 * d.square().mean() + differences(y, x) + chroma.abs().mean() + blocks + 1.5 * green.abs().mean()


def batch(large: np.ndarray, small: np.ndarray, rng: np.random.Generator, n: int, size: int) -> torch.Tensor:
    """Whole scenes, scaled down below 512, or at 256 crops of the large ones: small flat crops train badly, GroupNorm loses their absolute colour."""
    out = []
    for _ in range(n):
        k = int(rng.integers(len(small) - data.HELD_OUT))
        if size == 512:
            picture = large[k]
        elif size == 256 and rng.uniform() < 0.6:
            y, x = rng.integers(0, 257, 2)
            picture = large[k, y : y + size, x : x + size]
        else:
            q = 256 // size
            picture = small[k].reshape(size, q, size, q, 3).mean((1, 3)).astype(np.uint8) if q > 1 else small[k]
        out.append(picture[:, ::-1] if rng.uniform() < 0.5 else picture)
    return as_input(np.stack(out))


def run(ring: Ring, work: Work, count: int, recipe: Recipe):
    """Trains encoder and decoder, folds the latents' mean and deviation into them, and writes the bundle's `vae`."""
    large, small = data.pictures(work, count)
    torch.manual_seed(0)
    model = Trained().to(ring.device)

    def loss(step: int, rng: np.random.Generator):
        share = step / recipe.steps
        size, n = (64, 32) if share < 0.15 else (128, 16) if share < 0.55 else (256, 4)
        x = batch(large, small, rng, ring.share(n), size).to(ring.device)
        posterior = model.vae.encode(x).latent_dist
        z, target = posterior.sample(), x
        if step % 5 == 4 and size > 64:  # so that half a latent is a latent of half the picture, and the UNet can begin small
            z, target = F.avg_pool2d(z, 2), F.avg_pool2d(x, 2)
        y = model.vae.decode(z).sample
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        colours = torch.einsum("oc,nchw->nohw", OPPONENTS.to(x), F.avg_pool2d(x, 8))
        reading = (model.colours(posterior.mean) - colours).abs().mean()
        total = likeness(y, target) + 0.45 * reading + 4e-4 * kl
        return total, {"l1": float((y - target).detach().abs().mean()), "kl": float(kl.detach()), "colours": float(reading.detach())}

    mean = train("vae", ring, model, recipe, work.checkpoints / "vae.pt", loss).vae
    if ring.rank == 0:
        fold(mean, small[-data.HELD_OUT :])
        print(f"vae: PSNR {psnr(mean, large):.2f} dB on held-out pictures of 512")
        mean.half().save_pretrained(work.bundle / "vae")


def run_decoder(ring: Ring, work: Work, stage: str, count: int, noise: float, large_too: bool, recipe: Recipe):
    """Goes on with the decoder alone: the latents stay what the UNet has learnt, and noise on them, of deviation 0 to `noise`, leaves no trace in the picture.

    With `large_too` every other batch is of whole scenes of 512, the statistics of whose GroupNorms are those of the pictures that are drawn, and squares
    of differences count: what PSNR is of.
    """
    large, small = data.pictures(work, count)
    vae = load(work).to(ring.device)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)

    def loss(step: int, rng: np.random.Generator):
        whole = large_too and step % 2 == 1
        x = batch(large, small, rng, ring.share(2 if whole else 4), 512 if whole else 256).to(ring.device)
        with torch.no_grad():
            z = vae.encode(x).latent_dist.mean
        z = z + torch.rand(len(x), 1, 1, 1, device=z.device) * noise / SCALE * torch.randn_like(z)
        y = vae.decode(z).sample
        total = likeness(y, x)
        if large_too:
            total = total + 5 * (y - x).square().mean()
        return total, {"l1": float((y - x).detach().abs().mean()), "whole" if whole else "parts": decibels(y.detach(), x)}

    mean = train(stage, ring, vae, recipe, work.checkpoints / f"{stage}.pt", loss)
    if ring.rank == 0:
        print(f"{stage}: PSNR {psnr(mean, large):.2f} dB on held-out pictures of 512")
        mean.half().save_pretrained(work.bundle / "vae")


@torch.no_grad()
def fold(vae: AutoencoderKL, pictures: np.ndarray):
    """Moves the mean and the deviation of the latents into the 1x1 convolutions about them, so that SCALE makes them unit normal as SD2's are."""
    moments = []
    for k in range(0, len(pictures), 10):
        m = vae.encode(as_input(pictures[k : k + 10]).to(vae.device)).latent_dist.mean
        moments.append(torch.stack([m.mean((0, 2, 3)), m.square().mean((0, 2, 3))]))
    mean, square = torch.stack(moments).mean(0)
    gain = 1 / (SCALE * (square - mean**2).sqrt())
    before, after = vae.quant_conv, vae.post_quant_conv
    before.weight[:4] *= gain[:, None, None, None]
    before.bias[:4] = (before.bias[:4] - mean) * gain
    before.bias[4:] += 2 * gain.log()
    after.bias += after.weight[:, :, 0, 0] @ mean
    after.weight /= gain[None, :, None, None]


def decibels(y: torch.Tensor, x: torch.Tensor) -> float:
    """PSNR of pictures `y` in -1..1 to `x`."""
    return float(-10 * ((x - y) / 2).square().mean().log10())


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures: np.ndarray) -> float:
    """Mean PSNR in dB of the last JUDGED pictures, which are held out, encoded and decoded again."""
    out = []
    for picture in pictures[-JUDGED:]:
        x = as_input(picture[None]).to(vae.device)
        y = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        out.append(decibels(y, x))
    return float(np.mean(out))


def load(work: Work) -> AutoencoderKL:
    """The bundle's, in f32. (`from_pretrained` would write the path of this folder into whatever is saved after it.)"""
    vae = AutoencoderKL(**CONFIG)
    vae.load_state_dict(load_file(work.bundle / "vae" / "diffusion_pytorch_model.safetensors"))
    return vae.eval()


def latents(work: Work, size: int) -> np.memmap:
    """The scaled latents of the first pictures, as many as were encoded: float16 [n, 4, size / 8, size / 8]."""
    return np.memmap(work.data / f"latents-{size}.f16", np.float16, "r").reshape(-1, 4, size // 8, size // 8)


def encode(ring: Ring, work: Work, count: int, size: int, chosen: int):
    """Encodes the first `chosen` of the `count` pictures at `size`; goes on where it stopped."""
    vae, out = load(work).to(ring.device), work.array(f"latents-{size}.f16", np.float16, (chosen, 4, size // 8, size // 8))
    pictures, done, n = data.pictures(work, count)[size == 256], work.array(f"encoded-{size}.u8", np.uint8, (chosen,)), 8
    progress = Progress(f"latents of {size}", chosen)
    with torch.no_grad():
        for k in range(ring.rank * n, chosen, ring.size * n):
            part = slice(k, min(k + n, chosen))
            if not done[part].all():
                z = vae.encode(as_input(pictures[part]).to(ring.device)).latent_dist.mean * SCALE
                out[part], done[part] = z.half().cpu().numpy(), 1
            if ring.rank == 0:
                progress.at(min(chosen, k + n * ring.size))
