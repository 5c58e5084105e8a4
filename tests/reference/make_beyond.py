"""Makes the fixtures of what this project adds to the original: `NAME/beyond.json` and `.safetensors` beside those of `make.py`, and
`encoder.json` and `.safetensors` of the encoders of their VAEs and that of the demo model.

usage: make_beyond.py --seed N --out DIR, where `make.py` has made its fixtures with the same seed
The cases are drawn like those of `make.py`, from its bundles.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import diffusers
import torch
import torch.nn.functional as F
import transformers
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from beyond import Beyond, BeyondParameters
from bundles import BUNDLES, NETWORKS, write_json
from conditioning import share_of_bytes_off
from make import PROMPT, TRIES, draw_panorama
from syncdiffusion_reference import load_network

PLAIN = {
    "blend": "even", "seamless": False, "sync_mode": "windows", "prompts": (), "anchor_image": None, "image": None, "image_left": None,
    "strength": 0.0,
}
PICTURES = ("anchor_image", "image")
DEMO = Path(__file__).resolve().parents[2] / "models/demo"
# One for each kind of output of the UNet, and how the names of its cases begin.
NAMES = {
    "epsilon": ("",),
    "v": ("smooth", "prompts_seamless", "anchor_image_wide", "image_strength", "image_redrawn", "gently"),
}


def cases(model: Beyond, seed: int) -> dict[str, BeyondParameters]:
    size = model.window_size

    def parameters(height: int = size, width: int = 2 * size, **changes) -> BeyondParameters:
        defaults = {
            "prompt": PROMPT, "num_inference_steps": 3, "stride": 4, "guidance_scale": 4.0, "sync_threshold": 2, "sync_weight": 6.0,
            "seed": seed,
        }
        return BeyondParameters(height=height * model.factor, width=width * model.factor, **defaults | changes)

    def picture(height: int, width: int) -> torch.Tensor:
        """Soft shapes, with some detail."""
        generator = torch.Generator().manual_seed(seed + 17 * height + width)
        coarse = F.interpolate(torch.rand(1, 3, 4, 5, generator=generator), (height, width), mode="bicubic")
        detail = torch.rand(1, 3, height, width, generator=generator)
        return ((0.8 * coarse + 0.2 * detail).clamp(0, 1)[0].permute(1, 2, 0) * 255).to(torch.uint8)

    side = size * model.factor
    little = {"stride": 8, "sync_threshold": 1}
    gently = {"stride": 4, "sync_threshold": 1, "sync_weight": 2.0, "guidance_scale": 2.0}
    texts = {"prompts": ("by day", "", "at night"), "width": 2 * size + 8} | little
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
        "prompts": parameters(**texts),
        "prompts_alone": parameters(**texts | {"prompt": "", "guidance_scale": 7.5, "sync_threshold": 0}),
        "prompts_seamless": parameters(**texts, blend="smooth", seamless=True),
        "prompts_loop_closure": parameters(prompts=("by day", "at night"), stride=4, loop_closure=True, sync_threshold=0, guidance_scale=7.5),
        "prompts_canvas": parameters(**texts, sync_mode="canvas"),
        "prompts_one_window": parameters(**texts | {"prompts": ("by day", "at night"), "width": size}),
        "anchor_image": parameters(**little, anchor_image=picture(side, side)),
        "anchor_image_wide": parameters(**little, anchor_image=picture(side + 5, 2 * side + 10)),
        "anchor_image_canvas": parameters(**little, anchor_image=picture(20, 13), sync_mode="canvas"),
        "anchor_image_one_window": parameters(**little, anchor_image=picture(2 * side, side), width=size),
        "image": parameters(**little, image=picture(side, side + model.factor)),
        "image_left": parameters(**little | {"sync_threshold": 0}, image=picture(2 * side - 3, side), image_left=0),
        "image_strength": parameters(
            **little, image=picture(side, side // 2 + 3), image_left=side // 2, strength=0.5, num_inference_steps=4,
        ),
        "image_seamless": parameters(
            **little, image=picture(side, side), blend="smooth", seamless=True, image_left=side, anchor_image=picture(side, side),
        ),
        "image_narrow": parameters(
            **little | {"num_inference_steps": 5, "sync_threshold": 0}, image=picture(2 * side, side // 2), width=4 * size, image_left=side,
        ),
        "image_seamless_between": parameters(
            **little | {"num_inference_steps": 4, "sync_threshold": 0}, image=picture(side, side), blend="smooth", seamless=True,
        ),
        "image_redrawn": parameters(**little | {"sync_threshold": 3}, image=picture(side // 2, side), strength=0.7, num_inference_steps=4),
        "image_strength_1": parameters(**little, image=picture(side, 2 * side), strength=1.0),
        "image_prompts_canvas": parameters(**texts, image=picture(side, side), sync_mode="canvas"),
        "gently_seamless": parameters(**gently, blend="smooth", seamless=True),
        "gently_canvas": parameters(**gently | {"width": 3 * size}, sync_mode="canvas"),
    }


def inputs(parameters: BeyondParameters) -> dict:
    """The inputs of a case by name: pictures are tensors, and what is new is there only where it is used."""
    document = dataclasses.asdict(parameters)
    new = [name for name in ("prompts", "image_left", "strength") if document[name] == PLAIN[name]]
    return {name: value for name, value in document.items() if name not in (*PICTURES, *new)}


def write_encoder(out: Path, seed: int) -> None:
    """What diffusers' encoders make of pictures: means, as the UNet takes them."""
    generator = torch.Generator().manual_seed(seed)
    document, tensors = {"vae_encoder": []}, {}
    for name in (*BUNDLES, *NETWORKS, "demo"):
        vae = load_network(AutoencoderKL, DEMO if name == "demo" else out / "bundles" / name, "vae")
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        for height, width in ((6, 4), (3, 9)):
            coarse = torch.rand(1, 3, height, width, generator=generator)
            picture = F.interpolate(coarse, (height * factor, width * factor), mode="bicubic").clamp(0, 1)
            with torch.no_grad():
                latents = vae.encode(picture * 2 - 1).latent_dist.mode() * vae.config.scaling_factor
            names = {key: f"vae_encoder.{len(document['vae_encoder'])}.{key}" for key in ("picture", "latents")}
            tensors |= {names["picture"]: picture.contiguous(), names["latents"]: latents.contiguous()}
            document["vae_encoder"].append({"bundle": name, **names})
    write_json(out / "encoder.json", document)
    save_file(tensors, out / "encoder.safetensors")


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
    write_encoder(arguments.out, arguments.seed)
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
            given = {name: getattr(drawn.parameters, name) for name in PICTURES if getattr(drawn.parameters, name) is not None}
            found = {"final_latent": drawn.final_latent, "picture": drawn.picture, **given}
            names = {key: f"panoramas.{len(document['panoramas'])}.{key}" for key in found}
            tensors |= {names[key]: tensor.contiguous() for key, tensor in found.items()}
            document["panoramas"].append({
                "name": case, "parameters": inputs(drawn.parameters),
                "conditioning": dataclasses.asdict(drawn.change), **names,
            })
            plain = dataclasses.replace(drawn.parameters, **PLAIN)
            model.ring = False
            changed = share_of_bytes_off(drawn.picture, model.picture(model.sample(plain)))
            print(f"{name} {case:28} try {drawn.tries:3}  latent off {drawn.change.final_latent:.1e}  changed {changed:.1%}", flush=True)
            if plain != drawn.parameters and changed < 0.03 and case not in ("smooth_one_window", "image_strength_1"):
                complaints.append(f"{name}/{case}: the picture is that of the original")
        write_json(arguments.out / name / "beyond.json", document)
        save_file(tensors, arguments.out / name / "beyond.safetensors")
    if complaints:
        sys.exit("\n".join(complaints))


if __name__ == "__main__":
    main()
