"""What this project adds to the original: tapered windows, the ring of a picture without ends, synchronisation on the canvas, texts from
left to right, and pictures that the panorama looks like or that become part of it.

Window after window, in fp32, as simply as it can be written; `make_beyond.py` makes fixtures with it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import torch
import torch.nn.functional as F

from syncdiffusion_reference import Parameters, SyncDiffusion, Window, check_size, find_windows

# What the decoder sees of the other end, in latents.
MARGIN = 18
# Over how many latents at its sides a picture is kept less and less.
TAPER = 2
# In which share of the steps it goes on right beside itself.
BESIDE = Fraction(4, 5)
MASK = 2**64 - 1


@dataclass(frozen=True)
class BeyondParameters(Parameters):
    """The inputs of the original, and what comes after them. `blend` is even unless it is given, also where the server has another
    default."""

    blend: str = "even"
    seamless: bool = False
    sync_mode: str = "windows"
    prompts: tuple[str, ...] = ()
    # Pictures are bytes, [height, width, 3].
    anchor_image: torch.Tensor | None = field(default=None, compare=False)
    image: torch.Tensor | None = field(default=None, compare=False)
    image_left: int | None = None
    strength: float = 0.0

    @property
    def texts(self) -> list[str]:
        """The texts that windows follow, from left to right."""
        if not self.prompts:
            return [self.prompt]
        return [", ".join(part for part in (self.prompt, text) if part) for text in self.prompts]


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
        negative, texts = self.embed(p.negative_prompt), [self.embed(text) for text in p.texts]
        if p.seamless:
            windows = find_ring(height, width, size, p.stride)
            rows = (height - size) // p.stride + 1
            anchor = rows // 2 * (width // p.stride) + (width - size) // 2 // p.stride
        else:
            windows = find_windows(height, width, size, p.stride, p.loop_closure)
            anchor = len(windows) // 2
        weights = window_weights(p.blend, windows, size).to(latent)
        self.scheduler.set_timesteps(p.num_inference_steps)

        def embeddings(window: Window) -> torch.Tensor:
            shares = text_shares(window.column, width, size, len(texts), p.seamless or p.loop_closure)
            return torch.cat([negative, sum(share * texts[text] for text, share in shares.items())])

        given = p.image if p.anchor_image is None else p.anchor_image
        if given is not None:
            given = resize(square(as_image(given)), size * self.factor, size * self.factor)
        noise, first = latent, 0
        steps = len(self.scheduler.timesteps)
        kept_steps = steps - min(int(steps * p.strength), steps)
        kept = p.image is not None and kept_steps > 0
        if kept:
            picture, mask, strength = self.place_image(p, noise)
            if mask.min() == 1:  # It fills the panorama.
                latent, first, kept = self.scheduler.add_noise(picture, noise, self.scheduler.timesteps[kept_steps]), kept_steps, False

        for step, timestep in enumerate(self.scheduler.timesteps):
            if step < first:
                continue
            if kept and step < kept_steps:
                noisy, latent = self.scheduler.add_noise(picture, noise, timestep), latent.clone()
                for column, share in enumerate(strength):
                    if step < int(share * kept_steps):
                        latent[:, :, :, column] = noisy[:, :, :, column]
                    else:
                        at = mask[:, :, :, column]
                        latent[:, :, :, column] = at * noisy[:, :, :, column] + (1 - at) * latent[:, :, :, column]

            def gradient_of(index: int, view: torch.Tensor, window: Window) -> torch.Tensor:
                loss, gradient = self.sync_gradient(view, target, timestep, embeddings(window), p.guidance_scale)
                if on_sync is not None:
                    on_sync(step, index, loss.item(), gradient.norm().item())
                return gradient

            syncs = p.syncs_in(step) and (len(windows) > 1 or given is not None)
            target = given
            if syncs and given is None:
                with torch.no_grad():
                    view = self.cut(latent, windows[anchor])
                    target = self.predict_picture(view, timestep, embeddings(windows[anchor]), p.guidance_scale)
            if syncs and p.sync_mode == "canvas":
                parts = find_parts(height, width, size, p, step // p.sync_freq)
                moved = [part for part in parts if part != windows[anchor] or given is not None]
                gradients = [gradient_of(index, self.cut(latent, part), part) for index, part in enumerate(moved)]
                if moved:
                    latent = latent - p.sync_weight_of(step) * self.fuse(gradients, moved, torch.ones(size, size), latent)
            views = [self.cut(latent, window) for window in windows]
            if syncs and p.sync_mode == "windows":
                for index in range(len(windows)):
                    if index != anchor or given is not None:
                        views[index] = views[index] - p.sync_weight_of(step) * gradient_of(index, views[index], windows[index])
            with torch.no_grad():
                denoised = [
                    self.denoise(view, timestep, embeddings(window), p.guidance_scale).prev_sample
                    for view, window in zip(views, windows, strict=True)
                ]
            latent = self.fuse(denoised, windows, weights, latent)
        if kept and kept_steps == steps:
            latent = mask * picture + (1 - mask) * latent
        return latent

    @torch.no_grad()
    def place_image(self, parameters: BeyondParameters, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[Fraction]]:
        """The latents of `image` at its place in a panorama, mirrored beyond its sides; how much each is kept, 0 elsewhere; and in which
        share of the steps a column is kept whole."""
        p, image = parameters, as_image(parameters.image)
        scaled = (2 * image.shape[3] * p.height + image.shape[2]) // (2 * image.shape[2])
        width = scaled // self.factor * self.factor
        cut = (scaled - width) // 2
        image = resize(image, p.height, scaled)[:, :, :, cut : cut + width]
        columns, room = width // self.factor, like.shape[3] - width // self.factor
        if p.image_left is None:
            left = room // 2
        else:
            left = (p.image_left + self.factor // 2) // self.factor
        right = left + columns
        reach = self.window_size // 2
        before, after = (room - room // 2, room // 2) if p.seamless else (left, room - left)
        before, after = min(before, reach), min(after, reach)

        flipped = image.flip(3)
        halves = -(-reach // columns)
        mirrored = torch.cat([flipped if i % 2 else image for i in range(-halves, halves + 1)], 3)
        begin, end = (halves * columns - before) * self.factor, ((halves + 1) * columns + after) * self.factor
        latent = self.vae.encode(mirrored[:, :, :, begin:end] * 2 - 1).latent_dist.mode() * self.vae.config.scaling_factor

        picture, mask, strength = torch.zeros_like(like), torch.zeros_like(like), [Fraction(0)] * like.shape[3]
        for i in range(-before, columns + after):
            at = (left + i) % like.shape[3]
            picture[:, :, :, at] = latent[:, :, :, before + i]
            outside = -1 - i if i < 0 else i - columns if i >= columns else 0
            strength[at] = BESIDE * Fraction(reach - outside, reach)
        mask[:, :, :, left:right] = 1
        for i in range(TAPER):
            if left > 0 or (p.seamless and room):
                mask[:, :, :, left + i] = torch.minimum(mask[:, :, :, left + i], torch.tensor((i + 1) / (TAPER + 1)))
            if right < like.shape[3] or (p.seamless and room):
                mask[:, :, :, right - 1 - i] = torch.minimum(mask[:, :, :, right - 1 - i], torch.tensor((i + 1) / (TAPER + 1)))
        return picture, mask, strength

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


def text_shares(column: int, width: int, size: int, count: int, meets: bool) -> dict[int, float]:
    """How much each of `count` texts counts for a window: the shares of the nearest two, or of one, by index.

    Texts are at even distances, the first where the first window is and the last where the last one is. Where the ends of the panorama
    meet, each is in the middle of its share of the width, and the first comes again after the last.
    """
    if count == 1:
        return {0: 1.0}
    if meets:
        place = (column + size / 2) * count / width - 0.5
        place = place % count
        first, second = int(place), (int(place) + 1) % count
    else:
        place = (count - 1) * (column / (width - size) if width > size else 0.5)
        first = min(int(place), count - 1)
        second = min(first + 1, count - 1)
    share = place - first
    return {first: 1.0} if share == 0 or first == second else {first: 1 - share, second: share}


def as_image(picture: torch.Tensor) -> torch.Tensor:
    """Bytes as the networks take them, in 0..1."""
    return picture.permute(2, 0, 1)[None].float() / 255


def square(image: torch.Tensor) -> torch.Tensor:
    """The largest square in the middle."""
    side = min(image.shape[2:])
    top, left = ((length - side) // 2 for length in image.shape[2:])
    return image[:, :, top : top + side, left : left + side]


def resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if image.shape[2:] == (height, width):
        return image
    return F.interpolate(image, (height, width), mode="bicubic", antialias=True).clamp(0, 1)


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
