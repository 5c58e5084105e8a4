"""The work folder: where each stage keeps what it made, and how it tells how far it is."""

import dataclasses
import json
import time
from pathlib import Path

import numpy as np

from .scene import Scene


class Work:
    """A folder with `data/`, `checkpoints/`, `bundle/` and `results/`, made as needed."""

    def __init__(self, root: Path):
        self.data, self.checkpoints, self.bundle, self.results = (root / name for name in ("data", "checkpoints", "bundle", "results"))
        for folder in (self.data, self.checkpoints, self.bundle, self.results):
            folder.mkdir(parents=True, exist_ok=True)

    def array(self, name: str, dtype, shape: tuple[int, ...]) -> np.memmap:
        """An array on disk, zeros at first. It is created again if its size has changed."""
        path = self.data / name
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        old = path.exists() and path.stat().st_size == size
        return np.memmap(path, dtype, "r+" if old else "w+", shape=shape)

    def scenes(self) -> list[Scene]:
        """The scenes of the rendered pictures, in their order."""
        return [Scene(**scene) for scene in json.loads((self.data / "scenes.json").read_text())]

    def write_scenes(self, scenes: list[Scene]):
        (self.data / "scenes.json").write_text(json.dumps([dataclasses.asdict(scene) for scene in scenes]))


class Progress:
    """Prints a line now and then: how far, how long yet, and what else the caller has to say."""

    def __init__(self, stage: str, total: int, done: int = 0, every: float = 15.0):
        self.stage, self.total, self.first, self.every = stage, total, done, every
        self.start, self.last = time.monotonic(), 0.0

    def at(self, done: int, say=lambda: ""):
        now = time.monotonic()
        if done < self.total and now - self.last < self.every:
            return
        self.last = now
        spent, fresh = now - self.start, max(1, done - self.first)
        left = spent / fresh * (self.total - done)
        print(f"{self.stage}: {done}/{self.total} ({100 * done / self.total:.0f} %), {spent / 60:.1f} min, {left / 60:.1f} min to go  {say()}", flush=True)
