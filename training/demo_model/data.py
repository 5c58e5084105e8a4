"""The pictures to learn from: scenes at random, rendered at 512 pixels, and halved to 256."""

import multiprocessing
import os

import numpy as np
from PIL import Image

from .render import render
from .scene import Scene, sample
from .work import Progress, Work

HELD_OUT = 300
"""The number of scenes, the last ones, that are never trained on."""


def scene_of(index: int) -> Scene:
    """The scene of a number, always the same."""
    return sample(np.random.default_rng([1, index]))


def picture_of(index: int, size: int = 512) -> np.ndarray:
    """Its picture: uint8 [size, size, 3]."""
    return render(np.random.default_rng([2, index]), scene_of(index), size, size)


def pictures(work: Work, count: int) -> tuple[np.memmap, np.memmap]:
    """The rendered pictures: uint8 [count, 512, 512, 3], and the same at 256."""
    return work.array("pictures-512.u8", np.uint8, (count, 512, 512, 3)), work.array("pictures-256.u8", np.uint8, (count, 256, 256, 3))


def _draw(job: tuple[Work, int, range]) -> int:
    work, count, indices = job
    large, small = pictures(work, count)
    done = work.array("rendered.u8", np.uint8, (count,))
    for index in indices:
        if not done[index]:
            large[index] = picture_of(index)
            small[index] = np.asarray(Image.fromarray(large[index]).reduce(2))
            done[index] = 1
    return len(indices)


def run(work: Work, count: int):
    """Renders what is not there yet, a process a core."""
    work.write_scenes([scene_of(index) for index in range(count)])
    pictures(work, count), work.array("rendered.u8", np.uint8, (count,))
    jobs = [(work, count, range(start, min(start + 50, count))) for start in range(0, count, 50)]
    progress, done = Progress("pictures", count), 0
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for drawn in pool.imap_unordered(_draw, jobs):
            done += drawn
            progress.at(done)
