"""What this project adds to the original: tapered windows, the ring of a picture without ends, synchronisation on the canvas.

Window after window, in fp32, as simply as it can be written; `make_beyond.py` makes fixtures with it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from syncdiffusion_reference import Parameters, SyncDiffusion, Window, check_size, find_windows

# What the decoder sees of the other end, in latents.
MARGIN = 18
MASK = 2**64 - 1


@dataclass(frozen=True)
class BeyondParameters(Parameters):
    """The inputs of the original, and what comes after them. `blend` is even unless it is given, also where the server has another
    default."""

    blend: str = "even"
    seamless: bool = False
    sync_mode: str = "windows"


class Beyond(SyncDiffusion):
    """The networks of one bundle, and the algorithm with what was added to it."""

    # Whether the next picture is that of a ring.
    ring = False

    def sample(
        self,
        parameters: BeyondParameters,
        start: torch.Tensor | None = None,
        on_sync: Callable[[int, int, float, float], None] | None = None,
    ) -> torch.Tensor:
        p = parameters
        latent = self.start_latent(p) if start is None else start
        height, width = latent.shape[2:]
        size = self.window_size
        check_size(height, width, size, p)
        embeddings = torch.cat([self.embed(p.negative_prompt), self.embed(p.prompt)])
        if p.seamless:
            windows = find_ring(height, width, size, p.stride)
            rows = (height - size) // p.stride + 1
            anchor = rows // 2 * (width // p.stride) + (width - size) // 2 // p.stride
        else:
            windows = find_windows(height, width, size, p.stride, p.loop_closure)
            anchor = len(windows) // 2
        weights = window_weights(p.blend, windows, size).to(latent)
        self.scheduler.set_timesteps(p.num_inference_steps)

        for step, timestep in enumerate(self.scheduler.timesteps):

            def gradient_of(index: int, view: torch.Tensor) -> torch.Tensor:
                loss, gradient = self.sync_gradient(view, target, timestep, embeddings, p.guidance_scale)
                if on_sync is not None:
                    on_sync(step, index, loss.item(), gradient.norm().item())
                return gradient

            syncs = p.syncs_in(step) and len(windows) > 1
            if syncs:
                with torch.no_grad():
                    target = self.predict_picture(self.cut(latent, windows[anchor]), timestep, embeddings, p.guidance_scale)
            if syncs and p.sync_mode == "canvas":
                parts = find_parts(height, width, size, p, step // p.sync_freq)
                moved = [part for part in parts if part != windows[anchor]]
                gradients = [gradient_of(index, self.cut(latent, part)) for index, part in enumerate(moved)]
                if moved:
                    latent = latent - p.sync_weight_of(step) * self.fuse(gradients, moved, torch.ones(size, size), latent)
            views = [self.cut(latent, window) for window in windows]
            if syncs and p.sync_mode == "windows":
                for index in range(len(windows)):
                    if index != anchor:
                        views[index] = views[index] - p.sync_weight_of(step) * gradient_of(index, views[index])
            with torch.no_grad():
                denoised = [self.denoise(view, timestep, embeddings, p.guidance_scale).prev_sample for view in views]
            latent = self.fuse(denoised, windows, weights, latent)
        return latent

    def fuse(self, views: list[torch.Tensor], windows: list[Window], weights: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The weighted mean of windows at each latent; 0 where there is none."""
        total, weight = torch.zeros_like(like), torch.zeros_like(like)
        for view, window in zip(views, windows, strict=True):
            rows, columns = self.place(window, like.shape[3])
            total[:, :, rows, columns] += view * weights
            weight[:, :, rows, columns] += weights
        return torch.where(weight > 0, total / weight, total)

    @torch.no_grad()
    def picture(self, latent: torch.Tensor) -> torch.Tensor:
        """The bytes of a latent panorama; of a ring each end is decoded beside the other."""
        if not self.ring:
            return super().picture(latent)
        columns = torch.arange(-MARGIN, latent.shape[3] + MARGIN) % latent.shape[3]
        picture = super().picture(latent[:, :, :, columns])
        return picture[:, MARGIN * self.factor : -MARGIN * self.factor]


def find_ring(height: int, width: int, size: int, stride: int) -> list[Window]:
    """A window at every stride all around, in every row."""
    return [Window(row, column) for row in range(0, height - size + 1, stride) for column in range(0, width, stride)]


def window_weights(blend: str, windows: list[Window], size: int) -> torch.Tensor:
    """The weights of a window, [size, size]: even, or those of a Hann window along every axis that has several windows."""
    flat = torch.ones(size, dtype=torch.float64)
    hann = torch.sin(torch.pi * (torch.arange(size, dtype=torch.float64) + 0.5) / size) ** 2
    smooth = blend == "smooth"
    across = hann if smooth and any(window.column for window in windows) else flat
    down = hann if smooth and any(window.row for window in windows) else flat
    return down[:, None] * across


def find_parts(height: int, width: int, size: int, parameters: BeyondParameters, sync: int) -> list[Window]:
    """The windows of synchronisation number `sync` on the canvas: as many as fit, moved by seed and number.

    Round a ring they are evenly apart, and moved by any number of columns. Else they lie side by side in the middle, moved by up to half
    a window, to the right and to the left (down and up) by turns, but not past an end: so of two synchronisations in a row one reaches
    each end.
    """
    draw = [mix((parameters.seed + mix(2 * sync + axis)) & MASK) for axis in (0, 1)]

    def side_by_side(length: int, drawn: int) -> list[int]:
        count = length // size
        shift = drawn % (size // 2)
        first = (length - count * size) // 2 + (shift if sync % 2 == 0 else -shift)
        return [min(max(first + i * size, 0), length - size) for i in range(count)]

    rows = side_by_side(height, draw[1])
    if parameters.seamless:
        count = width // size
        columns = [(draw[0] % width + i * width // count) % width for i in range(count)]
    else:
        columns = side_by_side(width, draw[0])
    return [Window(row, column) for row in rows for column in columns]


def mix(x: int) -> int:
    """One number of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators)."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)
