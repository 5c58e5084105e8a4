"""Makes the fixtures of what this project adds to the original: `NAME/beyond.json` and `.safetensors` beside those of `make.py`.

usage: make_beyond.py --seed N --out DIR, where `make.py` has made its fixtures with the same seed
The cases are drawn like those of `make.py`, from its bundles.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import diffusers
import torch
import transformers
from safetensors.torch import save_file

from beyond import Beyond, BeyondParameters
from bundles import BUNDLES, write_json
from conditioning import share_of_bytes_off
from make import PROMPT, TRIES, draw_panorama

PLAIN = {"blend": "even", "seamless": False, "sync_mode": "windows"}
# One for each kind of output of the UNet, and how the names of its cases begin.
NAMES = {"epsilon": "", "v": "smooth"}


def cases(model: Beyond, seed: int) -> dict[str, BeyondParameters]:
    size = model.window_size

    def parameters(height: int = size, width: int = 2 * size, **changes) -> BeyondParameters:
        defaults = {
            "prompt": PROMPT, "num_inference_steps": 3, "stride": 4, "guidance_scale": 4.0, "sync_threshold": 2, "sync_weight": 6.0,
            "seed": seed,
        }
        return BeyondParameters(height=height * model.factor, width=width * model.factor, **defaults | changes)

    return {
        "smooth": parameters(blend="smooth"),
        "smooth_half": parameters(blend="smooth", stride=size // 2, sync_threshold=0),
        "smooth_vertical": parameters(blend="smooth", height=2 * size, width=size, stride=8),
        "smooth_grid": parameters(blend="smooth", height=size + 8, width=size + 8, stride=8),
        "smooth_loop_closure": parameters(blend="smooth", loop_closure=True),
        "smooth_one_window": parameters(blend="smooth", width=size),
        "seamless": parameters(blend="smooth", seamless=True),
        "seamless_even": parameters(seamless=True, stride=8),
        "seamless_tall": parameters(blend="smooth", seamless=True, height=size + 8, stride=8),
        "seamless_narrow": parameters(blend="smooth", seamless=True, width=size, sync_threshold=0),
        "canvas": parameters(sync_mode="canvas", width=3 * size),
        "canvas_sync_freq_2": parameters(sync_mode="canvas", num_inference_steps=4, sync_freq=2, sync_threshold=4, sync_weight=12.0),
        "canvas_grid": parameters(sync_mode="canvas", height=size + 8, width=2 * size + 8, stride=8),
        "canvas_seamless": parameters(sync_mode="canvas", blend="smooth", seamless=True, width=2 * size + 4),
        "canvas_loop_closure": parameters(sync_mode="canvas", loop_closure=True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the fixtures of what this project adds to the original.")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    complaints = []
    for name in NAMES:
        seed = 1000 * arguments.seed + list(BUNDLES).index(name)
        model = Beyond(arguments.out / "bundles" / name)
        document, tensors = {"window_size": model.window_size, "factor": model.factor, "panoramas": []}, {}
        for case, wanted in cases(model, seed).items():
            if not case.startswith(NAMES[name]):
                continue
            model.ring = wanted.seamless
            drawn = draw_panorama(model, wanted)
            if drawn is None:
                complaints.append(f"{name}/{case}: no seed of {TRIES} is well conditioned")
                continue
            found = {"final_latent": drawn.final_latent, "picture": drawn.picture}
            names = {key: f"panoramas.{len(document['panoramas'])}.{key}" for key in found}
            tensors |= {names[key]: tensor.contiguous() for key, tensor in found.items()}
            document["panoramas"].append({
                "name": case, "parameters": dataclasses.asdict(drawn.parameters),
                "conditioning": dataclasses.asdict(drawn.change), **names,
            })
            plain = dataclasses.replace(drawn.parameters, **PLAIN)
            model.ring = False
            changed = share_of_bytes_off(drawn.picture, model.picture(model.sample(plain)))
            print(f"{name} {case:28} try {drawn.tries:3}  latent off {drawn.change.final_latent:.1e}  changed {changed:.1%}", flush=True)
            if plain != drawn.parameters and changed < 0.03 and case != "smooth_one_window":
                complaints.append(f"{name}/{case}: the picture is that of the original")
        write_json(arguments.out / name / "beyond.json", document)
        save_file(tensors, arguments.out / name / "beyond.safetensors")
    if complaints:
        sys.exit("\n".join(complaints))


if __name__ == "__main__":
    main()
