"""How much of the rounding of a right implementation a case lets through to its result.

Two right implementations in fp32 differ by about 2e-6 of a UNet output. A case is worth comparing closely only where such a difference
stays small: guidance and the division by the signal's share amplify it, and the sync gradient jumps where a ReLU, a max pooling or the
clamp changes sides. Here that is measured, on the reference alone; `make.py` draws cases again until they are calm.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator

import torch

from syncdiffusion_reference import SyncDiffusion

# Relative to a tensor: a little more than the rounding of one UNet output.
ROUNDING = 3e-6
# Gradients are measured with noise larger by this factor, so that rounding cannot reach their kinks.
MARGIN = 5
DRAWS = 3


def relative_difference(value: torch.Tensor, reference: torch.Tensor) -> float:
    return ((value.double() - reference.double()).norm() / reference.double().norm()).item()


def with_noise(tensor: torch.Tensor, relative: float, generator: torch.Generator) -> torch.Tensor:
    """`tensor` plus white noise that is `relative` as long."""
    root_mean_square = tensor.detach().square().mean().sqrt()
    return tensor + relative * root_mean_square * torch.randn(tensor.shape, generator=generator)


@contextlib.contextmanager
def noisy_networks(model: SyncDiffusion, relative: float, seed: int) -> Iterator[None]:
    """Adds noise to every output of the UNet and of the VAE decoder."""
    generator = torch.Generator().manual_seed(seed)

    def after_unet(module, arguments, output):
        return dataclasses.replace(output, sample=with_noise(output.sample, relative, generator))

    def after_decoder(module, arguments, output):
        return with_noise(output, relative, generator)

    hooks = [model.unet.register_forward_hook(after_unet), model.vae.decoder.register_forward_hook(after_decoder)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def in_double(model: SyncDiffusion) -> SyncDiffusion:
    """A copy whose UNet, VAE and LPIPS compute in fp64."""
    double = copy.copy(model)
    double.unet, double.vae = copy.deepcopy(model.unet).double(), copy.deepcopy(model.vae).double()
    double.lpips = copy.copy(model.lpips)
    double.lpips.weights = {name: weight.double() for name, weight in model.lpips.weights.items()}
    return double


def gradient_change(model: SyncDiffusion, gradient: torch.Tensor, compute: Callable[[], torch.Tensor], limit: float) -> float:
    """The largest relative change of a gradient under `MARGIN` times the noise of rounding, divided by `MARGIN`.

    Stops at the first draw that is above `limit`.
    """
    worst = 0.0
    for draw in range(DRAWS):
        with noisy_networks(model, MARGIN * ROUNDING, draw):
            worst = max(worst, relative_difference(compute(), gradient) / MARGIN)
        if worst > limit:
            break
    return worst


@dataclasses.dataclass(frozen=True)
class PanoramaChange:
    """What noise changes: the share of bytes that differ by more than 1, and the final latent, relatively."""

    bytes_off: float = 0.0
    final_latent: float = 0.0

    def within(self, limit: "PanoramaChange") -> bool:
        return self.bytes_off <= limit.bytes_off and self.final_latent <= limit.final_latent


def panorama_change(
    model: SyncDiffusion, final_latent: torch.Tensor, picture: torch.Tensor, sample: Callable[[], torch.Tensor], limit: PanoramaChange
) -> PanoramaChange:
    """The largest changes of a panorama under the noise of rounding. Stops at the first draw that is not within `limit`."""
    worst = PanoramaChange()
    for draw in range(DRAWS):
        with noisy_networks(model, ROUNDING, draw):
            noisy_latent = sample()
            noisy_picture = model.picture(noisy_latent)
        worst = PanoramaChange(
            bytes_off=max(worst.bytes_off, share_of_bytes_off(noisy_picture, picture)),
            final_latent=max(worst.final_latent, relative_difference(noisy_latent, final_latent)),
        )
        if not worst.within(limit):
            break
    return worst


def share_of_bytes_off(a: torch.Tensor, b: torch.Tensor) -> float:
    """The share of bytes of two pictures that differ by more than 1."""
    return ((a.int() - b.int()).abs() > 1).double().mean().item()
