"""What this project adds to the original: tapered windows, the ring of a picture without ends, synchronisation on the canvas.

Window after window, in fp32, as simply as it can be written; `make_beyond.py` makes fixtures with it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from syncdiffusion_reference import Parameters, SyncDiffusion, Window, check_size, find_windows


@dataclass(frozen=True)
class BeyondParameters(Parameters):
    """The inputs of the original, and what comes after them. `blend` is even unless it is given, also where the server has another
    default."""

    blend: str = "even"


class Beyond(SyncDiffusion):
    """The networks of one bundle, and the algorithm with what was added to it."""

    def sample(
        self,
        parameters: BeyondParameters,
        start: torch.Tensor | None = None,
        on_sync: Callable[[int, int, float, float], None] | None = None,
    ) -> torch.Tensor:
        p = parameters
        latent = self.start_latent(p) if start is None else start
        height, width = latent.shape[2:]
        check_size(height, width, self.window_size, p)
        embeddings = torch.cat([self.embed(p.negative_prompt), self.embed(p.prompt)])
        windows = find_windows(height, width, self.window_size, p.stride, p.loop_closure)
        anchor = len(windows) // 2
        weights = window_weights(p.blend, windows, self.window_size).to(latent)
        self.scheduler.set_timesteps(p.num_inference_steps)

        for step, timestep in enumerate(self.scheduler.timesteps):
            views = [self.cut(latent, window) for window in windows]
            if p.syncs_in(step) and len(windows) > 1:
                with torch.no_grad():
                    target = self.predict_picture(views[anchor], timestep, embeddings, p.guidance_scale)
                for index in range(len(windows)):
                    if index != anchor:
                        loss, gradient = self.sync_gradient(views[index], target, timestep, embeddings, p.guidance_scale)
                        views[index] = views[index] - p.sync_weight_of(step) * gradient
                        if on_sync is not None:
                            on_sync(step, index, loss.item(), gradient.norm().item())
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


def window_weights(blend: str, windows: list[Window], size: int) -> torch.Tensor:
    """The weights of a window, [size, size]: even, or those of a Hann window along every axis that has several windows."""
    flat = torch.ones(size, dtype=torch.float64)
    hann = torch.sin(torch.pi * (torch.arange(size, dtype=torch.float64) + 0.5) / size) ** 2
    smooth = blend == "smooth"
    across = hann if smooth and any(window.column for window in windows) else flat
    down = hann if smooth and any(window.row for window in windows) else flat
    return down[:, None] * across
