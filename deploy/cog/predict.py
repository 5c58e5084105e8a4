"""The model as a Cog predictor, for Cog's tools: the inputs of openapi.yaml, with `syncdiffusion generate` behind them.

The image does not use it: there the server itself implements Cog's HTTP API. `num_outputs` is left out: for Cog, a predictor returns either
one picture or a list of them, whatever is asked for.
"""

import inspect
import subprocess
import tempfile
from pathlib import Path as File

from cog import BasePredictor, Input, Path


class Predictor(BasePredictor):
    def predict(
        self,
        prompt: str = Input(description="Prompt to generate from"),
        negative_prompt: str = Input(description="Prompt for negative conditioning", default=""),
        width: int = Input(description="Width of the output image", default=2048, ge=512, le=3072),
        height: int = Input(description="Height of the output image", default=512, ge=512, le=3072),
        guidance_scale: float = Input(description="Scale of the guidance image", default=7.5, ge=0, le=20),
        sync_weight: float = Input(description="Weight of the SyncDiffusion", default=20, ge=0, le=30),
        sync_decay_rate: float = Input(description="SyncDiffusion weight scheduler decay rate", default=0.99, ge=0, le=1),
        sync_freq: int = Input(description="Frequency for the SyncDiffusion", default=1),
        sync_threshold: int = Input(description="Maximum number of steps applied with SyncDiffusion", default=5, ge=0, le=50),
        num_inference_steps: int = Input(description="Number of inference steps for the diffusion", default=50, ge=1, le=200),
        stride: int = Input(description="Window stride for the diffusion", default=16),
        seed: int = Input(description="Seed for the SyncDiffusion", default=2, ge=0),
        loop_closure: bool = Input(description="Use loop closure", default=False),
        blend: str = Input(
            description="How windows are averaged where they overlap: evenly, or less towards their borders, which then do not show",
            default="even",
            choices=["even", "smooth"],
        ),
        seamless: bool = Input(description="Draw a loop whose ends meet without a seam, of any height", default=False),
        sync_mode: str = Input(
            description="What is synchronised: all windows, or as many as fit side by side on the canvas, with a third of the gradients",
            default="windows",
            choices=["windows", "canvas"],
        ),
        scheduler: str = Input(
            description="How the noise is removed; unipc needs fewer steps than ddim for the same picture",
            default="ddim",
            choices=["ddim", "unipc", "dpmpp_2m"],
        ),
        preset: str = Input(
            description="What is left out: fast is about a quarter of the work, by a stride of 32, blend smooth, sync_mode canvas with a "
            "sync_weight of 30, and scheduler unipc with 20 steps",
            default="default",
            choices=["default", "fast"],
        ),
        prompts: list[str] = Input(
            description="Texts from left to right, each beside prompt: the panorama goes from one to the next", default=[]
        ),
        anchor_image: Path | None = Input(description="Picture in whose look the panorama is drawn", default=None),
        image: Path | None = Input(description="Picture that becomes part of the panorama, which is drawn around it", default=None),
        image_left: int | None = Input(
            description="Column of the panorama at which image begins; in the middle if left out", default=None, ge=0, le=3071
        ),
        strength: float | None = Input(
            description="How much of image is drawn again; nothing if left out", default=None, ge=0, le=1
        ),
        output_format: str = Input(
            description="How the picture is encoded: png and webp without loss, jpeg in far fewer bytes",
            default="png",
            choices=["png", "jpeg", "webp"],
        ),
        output_quality: int = Input(description="Quality of a jpeg; the others lose nothing", default=90, ge=1, le=100),
        evaluate: bool = Input(
            description="Measure the picture: how visible its seam and the borders of its windows are, and how much it is of one piece",
            default=False,
        ),
    ) -> Path:
        given = {name: value for name, value in locals().items() if name != "self"}
        # What is at its default is left out: the default of some depends on others.
        defaults = {name: input.default for name, input in inspect.signature(self.predict).parameters.items()}
        inputs = {name: value for name, value in given.items() if value != getattr(defaults[name], "default", None)}
        output = File(tempfile.mkdtemp()) / f"output.{output_format}"
        flags = [flag for name, value in inputs.items() for flag in flags_of(name, value)]
        subprocess.run(["syncdiffusion", "generate", *flags, "--output", output], check=True)
        return Path(output)


def flags_of(name, value):
    """The flags of an input: one, or one for each text of a list."""
    values = value if isinstance(value, list) else [value]
    words = [str(value).lower() if isinstance(value, bool) else value for value in values]
    return [f"--{name.replace('_', '-')}={word}" for word in words]
