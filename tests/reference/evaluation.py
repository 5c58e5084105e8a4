"""The figures of `syncdiffusion evaluate`, computed independently: kinks by NumPy, Intra-LPIPS by `Lpips` as in the authors' evaluation.

usage: evaluation.py --model BUNDLE [--stride N] PNG..
prints them for pictures. `make.py` writes `evaluation.json`: figures of drawn pictures, which Rust draws again and compares.

A window of the model is `size` latents wide, a latent `factor` pixels. Arrays are [height, width, 3] in uint8.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import torch

from perceptual import Lpips
from syncdiffusion_reference import find_windows

SQUARE = 512
# Of a drawn picture: bundle, width, height, seed; stride and loop_closure, or None where the windows are not known.
CASES = (
    ("epsilon", 1024, 512, 1, 16, False),
    ("v", 2048, 512, 2, 32, False),
    ("sharded", 3072, 512, 3, 8, False),
    ("epsilon", 1280, 1152, 4, 16, False),
    ("v", 640, 512, 5, 16, False),
    ("sharded", 1024, 512, 6, 16, True),
    ("epsilon", 1048, 517, 7, None, False),
    ("v", 512, 512, 8, 16, False),
    ("sharded", 2560, 1024, 9, 32, False),
)
SIZE, FACTOR = 64, 8


def drawn(width: int, height: int, seed: int) -> np.ndarray:
    """A picture that any language draws alike, by whole numbers: waves, steps every 8 and every 128 columns and rows, and noise."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    wave = (x * (c + 2) + y * 3 + seed * 31) % 510
    wave = np.minimum(wave, 510 - wave) * 5 // 8
    steps = (x // 8 * 5 + y // 8 * 3) % 11 + (x // 128 * 37 + y // 128 * 29 + seed) % 23
    mixed = (x * 73856093) ^ (y * 19349663) ^ ((c + 1) * 83492791) ^ (seed * 2654435761)
    return (wave + steps + (mixed >> 13) % 16).astype(np.uint8)


def kinks(picture: np.ndarray) -> np.ndarray:
    """How much the step from column j to the next differs from the mean of those beside it, round the ring."""
    x = picture.astype(np.float64)
    d = np.roll(x, -1, 1) - x
    return np.abs(d - (np.roll(d, 1, 1) + np.roll(d, -1, 1)) / 2).mean((0, 2))


def borders(starts: set[int], size: int, length: int) -> set[int]:
    """Where windows begin or end along an axis, in latents, without the edges."""
    return {place % length for start in starts for place in (start, start + size)} - {0}


def figures(picture: np.ndarray, lpips: Lpips, stride: int | None, loop_closure: bool, size: int = SIZE, factor: int = FACTOR) -> dict:
    """`seam`, `borders`, `row_borders` and `intra_lpips`; None where the picture has nothing that they could be of."""
    height, width = picture.shape[0] // factor, picture.shape[1] // factor
    windows = find_windows(height, width, size, stride, loop_closure) if stride else []
    columns = borders({window.column for window in windows}, size, width)
    rows = borders({window.row for window in windows}, size, height)
    across, down = kinks(picture), kinks(picture.transpose(1, 0, 2))

    def relative(kinks: np.ndarray, places: list[int], borders: set[int]) -> float | None:
        # A kink before pixel p is that after p - 1. It takes two pixels on each side.
        grid = [p for p in range(factor, len(kinks), factor) if p + 1 < len(kinks) and p // factor not in borders]
        reference = kinks[[p - 1 for p in grid]].mean() if grid else 0.0
        return float(kinks[[p - 1 for p in places]].mean() / reference) if places and reference else None

    return {
        "seam": relative(across, [0], columns),
        "borders": relative(across, [factor * latent for latent in sorted(columns)], columns),
        "row_borders": relative(down, [factor * latent for latent in sorted(rows)], rows),
        "intra_lpips": intra_lpips(picture, lpips),
    }


@torch.no_grad()
def intra_lpips(picture: np.ndarray, lpips: Lpips) -> float | None:
    """The mean distance of all pairs of squares side by side."""
    height, width = picture.shape[:2]
    corners = itertools.product(range(0, height - SQUARE + 1, SQUARE), range(0, width - SQUARE + 1, SQUARE))
    squares = [picture[y : y + SQUARE, x : x + SQUARE] for y, x in corners]
    tensors = [torch.from_numpy(square.copy()).permute(2, 0, 1)[None].float() / (255 / 2) - 1 for square in squares]
    distances = [lpips(a, b).item() for a, b in itertools.combinations(tensors, 2)]
    return sum(distances) / len(distances) if distances else None


def cases(bundles: Path) -> list[dict]:
    """What `evaluation.json` holds."""
    made = []
    for bundle, width, height, seed, stride, loop_closure in CASES:
        expected = figures(drawn(width, height, seed), Lpips.from_bundle(bundles / bundle), stride, loop_closure)
        parameters = {"bundle": bundle, "width": width, "height": height, "seed": seed, "stride": stride, "loop_closure": loop_closure}
        made.append(parameters | {"expected": expected})
    return made


def main() -> None:
    from PIL import Image

    parser = argparse.ArgumentParser(description="Figures of pictures.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--stride", type=int)
    parser.add_argument("pictures", type=Path, nargs="+")
    arguments = parser.parse_args()
    lpips = Lpips.from_bundle(arguments.model)
    for path in arguments.pictures:
        picture = np.asarray(Image.open(path).convert("RGB"))
        print(json.dumps({"file": str(path)} | figures(picture, lpips, arguments.stride, False)))


if __name__ == "__main__":
    main()
