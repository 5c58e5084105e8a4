"""The command-line twin of `syncdiffusion generate`, computed by the reference.

usage: panorama.py --model DIR --prompt TEXT --output FILE.png [--json] [the inputs of a panorama]
With --json the last line of standard output is
{"seconds": sampling and decoding, "load_seconds", "peak_memory_bytes", "seed", "output"}.
"""

import argparse
import contextlib
import dataclasses
import json
import resource
import sys
import time

import torch
from PIL import Image

from syncdiffusion_reference import Parameters, SyncDiffusion


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Generates a panorama with the reference implementation of SyncDiffusion.")
    parser.add_argument("--model", required=True, help="folder of a Stable Diffusion 2 bundle with perceptual/")
    for field in dataclasses.fields(Parameters):
        option = "--" + field.name.replace("_", "-")
        if field.type is bool:
            parser.add_argument(option, action="store_true")
        elif field.default is dataclasses.MISSING:
            parser.add_argument(option, type=field.type, required=True)
        else:
            parser.add_argument(option, type=field.type, default=field.default, help="default: %(default)r")
    parser.add_argument("--output", required=True, help="PNG file to write")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--threads", type=int, help="threads of torch; by default torch chooses")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default: %(default)s")
    parser.add_argument("--dtype", choices=["f32", "bf16", "f16"], default="f32", help="others than f32 mean autocast; default: %(default)s")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    parameters = Parameters(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Parameters)})

    start = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        model = SyncDiffusion(arguments.model, arguments.device)
    loaded = time.perf_counter()
    dtype = {"f32": None, "bf16": torch.bfloat16, "f16": torch.float16}[arguments.dtype]
    with torch.autocast(model.device.type, dtype, enabled=dtype is not None):
        try:
            picture = model.picture(model.sample(parameters))
        except ValueError as error:
            sys.exit(str(error))
    finished = time.perf_counter()

    Image.fromarray(picture.numpy()).save(arguments.output)
    if arguments.json:
        print(json.dumps({
            "seconds": round(finished - loaded, 3),
            "load_seconds": round(loaded - start, 3),
            "peak_memory_bytes": peak_memory(model.device),
            "seed": parameters.seed,
            "output": arguments.output,
        }))


def peak_memory(device: torch.device) -> int:
    """What this process has held of the device at most, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
