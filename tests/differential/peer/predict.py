"""What the stand-in worker does, as a predictor of the real Cog: the words of a prompt tell it how to behave."""

import tempfile
import time
from pathlib import Path as File

from PIL import Image

from cog import BasePredictor, Input, Path


class Predictor(BasePredictor):
    def setup(self) -> None:
        pass

    def predict(
        self,
        prompt: str = Input(description="Prompt to generate from"),
        negative_prompt: str = Input(description="Prompt for negative conditioning", default=""),
        width: int = Input(description="Width of the output image", default=2048, ge=512, le=3072),
        height: int = Input(description="Height of the output image", default=512, ge=512, le=3072),
        guidance_scale: float = Input(description="Scale of the guidance image", default=7.5, ge=0, le=20),
        sync_weight: float = Input(description="Weight of the SyncDiffusion", default=20.0, ge=0, le=30),
        sync_decay_rate: float = Input(description="SyncDiffusion weight scheduler decay rate", default=0.99, ge=0, le=1),
        sync_freq: int = Input(description="Frequency for the SyncDiffusion", default=1),
        sync_threshold: int = Input(description="Maximum number of steps applied with SyncDiffusion", default=5, ge=0, le=50),
        num_inference_steps: int = Input(description="Number of inference steps for the diffusion", default=50, ge=1, le=200),
        stride: int = Input(description="Window stride for the diffusion", default=16),
        seed: int = Input(description="Seed for the SyncDiffusion", default=2, ge=0),
        loop_closure: bool = Input(description="Use loop closure", default=False),
    ) -> Path:
        words = prompt.split(" ")
        pace = next((int(word[5:]) for word in words if word.startswith("step=")), 1)
        for step in range(1, num_inference_steps + 1):
            time.sleep(pace / 1000)
            if "fail" in words and step * 2 >= num_inference_steps:
                raise ValueError("the stand-in was told to fail")
            print(f"step {step}/{num_inference_steps}", flush=True)
        path = File(tempfile.mkdtemp()) / "output.png"
        Image.new("RGB", (8, 8), (0, 0, 0)).save(path)
        return Path(path)
