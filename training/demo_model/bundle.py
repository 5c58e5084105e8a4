"""The finished bundle: what binds its parts together, and its size."""

import json
import shutil
from pathlib import Path

from .work import Work

PARTS = {
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
LIMIT = 16_000_000
"""What all the weights may take, in bytes."""


def start(work: Work, finished: Path):
    """Takes the parts of a finished bundle that the work folder has not made."""
    for name in (*PARTS, "perceptual"):
        if not (work.bundle / name).exists():
            shutil.copytree(finished / name, work.bundle / name)


def finish(work: Work):
    """Writes `model_index.json`, after a look at whether all parts are there."""
    missing = [name for name in (*PARTS, "perceptual") if not (work.bundle / name).is_dir()]
    if missing:
        raise SystemExit(f"{work.bundle} has no {', '.join(missing)} yet: run those stages first")
    nothing = {name: [None, None] for name in ("feature_extractor", "image_encoder", "safety_checker")}
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1", "requires_safety_checker": False} | nothing | PARTS
    (work.bundle / "model_index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    taken = size(work.bundle)
    if taken > LIMIT:
        raise SystemExit(f"the weights take {taken / 1e6:.1f} MB, which is more than {LIMIT / 1e6:.0f}")
    print(f"bundle: {taken / 1e6:.1f} MB of weights in {work.bundle}")


def size(bundle: Path) -> int:
    """Bytes of weights."""
    return sum(file.stat().st_size for file in bundle.rglob("*.safetensors"))
