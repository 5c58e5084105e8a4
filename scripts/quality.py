#!/usr/bin/env python3
"""quality.py borders|seam|canvas|preset [--model MODEL] [--prompts N] [--seeds N] [--steps N] [--width N ...] [--keep DIR]

Draws panoramas with inputs that the hosted model does not have, and with those that they are compared with; measures them with
`syncdiffusion evaluate`; prints a table in Markdown, and fails if a figure does not pass. docs/inputs.md has the tables of the demo model.

borders  kinks at the borders of windows, even and smooth, at strides 8, 16 and 32: smooth must be at 1.25 at most
seam     the kink where the ends meet: of seamless panoramas 1.25 at most, of the original's loop more than 10, or the figure says nothing
canvas   Intra-LPIPS without synchronisation, of all windows, and of the canvas at two weights: at the recommended one the canvas must be
         no worse than the windows, with a third of the gradients
preset   Intra-LPIPS and borders of the presets; the fast one must be no worse
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROMPTS = (
    "a lake at dawn", "a beach with palms at sunset", "snowy mountains under a clear sky", "a desert with dunes at noon",
    "a misty forest in the morning", "a city at night", "green hills in spring", "the sea in a storm",
    "a frozen river in winter", "a meadow with flowers", "a rocky coast at dusk", "fields under a starry sky",
)
STRIDES = (8, 16, 32)
MOST = 1.25
ORIGINAL_LOOP = 10
# Of the canvas; the weight of the original is 20.
RECOMMENDED_WEIGHT = 10


class Measurement:
    """Draws and measures pictures in a folder."""

    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.program = [options.server]
        self.worker = ["--worker", options.worker, "--model", options.model]

    def run(self, *arguments):
        done = subprocess.run([*self.program, *map(str, arguments), *self.worker], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"`{' '.join(map(str, arguments))}` failed")
        return done.stdout

    def figures(self, name, seeds=None, **inputs):
        """Draws the panoramas of a setting; returns their figures and what they took, by name."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        work = []
        for number, prompt in enumerate(PROMPTS[: self.options.prompts]):
            for seed in seeds or [number + 1]:
                given = {"prompt": prompt, "seed": seed, "guidance_scale": 5, "num_inference_steps": self.options.steps, **inputs}
                given = {key: value for key, value in given.items() if value is not None}
                flags = [f"--{key.replace('_', '-')}={str(value).lower() if key != 'prompt' else value}" for key, value in given.items()]
                picture = folder / f"{number:02}-{seed}.png"
                printed = self.folder / f"{name}-{picture.stem}.json"
                if not (picture.exists() and printed.exists()):
                    printed.write_text(self.run("generate", *flags, "--json", "--output", picture).splitlines()[-1])
                work.append(json.loads(printed.read_text()))
                print(".", end="", file=sys.stderr, flush=True)
        report = json.loads(self.run("evaluate", folder, "--json"))
        self.net = report["net"]
        return report["pictures"], work


def mean(pictures, figure):
    values = [picture[figure] for picture in pictures if picture[figure] is not None]
    if not values:
        sys.exit(f"no picture has a figure for `{figure}`: they are too narrow")
    deviation = f" ±{statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return statistics.mean(values), f"{statistics.mean(values):.3f}{deviation}"


def row(*cells):
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def head(*cells):
    row(*cells)
    print("|" + "---|" * len(cells), flush=True)


def borders(measure, failures):
    head("width", "stride", "`even`", "`smooth`")
    for width in measure.options.width:
        for stride in STRIDES:
            cells = []
            for blend in ("even", "smooth"):
                pictures, _ = measure.figures(f"{blend}-{width}-{stride}", blend=blend, width=width, stride=stride)
                value, cell = mean(pictures, "borders")
                cells.append(cell)
                if blend == "smooth" and value > MOST:
                    failures.append(f"borders of smooth windows at stride {stride}, width {width}: {value:.2f} is more than {MOST}")
            row(width, stride, *cells)


def seam(measure, failures):
    head("width", "stride", "`seamless`", "`loop_closure`", "borders of `seamless`")
    for width in measure.options.width:
        for stride in STRIDES:
            ring, _ = measure.figures(f"seamless-{width}-{stride}", seamless=True, width=width, stride=stride)
            value, cell = mean(ring, "seam")
            if value > MOST:
                failures.append(f"seam at stride {stride}, width {width}: {value:.2f} is more than {MOST}")
            original = ""
            if stride == 16:
                loop, _ = measure.figures(f"loop-{width}-{stride}", loop_closure=True, width=width, stride=stride)
                loop_value, original = mean(loop, "seam")
                if loop_value <= ORIGINAL_LOOP:
                    failures.append(f"seam of the original's loop: {loop_value:.2f} is no more than {ORIGINAL_LOOP}")
            row(width, stride, cell, original, mean(ring, "borders")[1])


def canvas(measure, failures):
    seeds = range(1, measure.options.seeds + 1)
    head("width", "`sync_mode`", "`sync_weight`", "gradients", "Intra-LPIPS", "borders")
    for width in measure.options.width:
        found = {}
        for mode, weight in (("windows", 0), ("windows", 20), ("windows", 10), ("canvas", 20), ("canvas", RECOMMENDED_WEIGHT)):
            name = f"{mode}-{weight}-{width}"
            pictures, work = measure.figures(name, seeds, sync_mode=mode, sync_weight=weight, width=width)
            gradients = statistics.mean(each["work"]["perceptual_backwards"] for each in work)
            found[mode, weight] = mean(pictures, "intra_lpips")[0], gradients
            row(width, mode, weight, f"{gradients:.0f}", mean(pictures, "intra_lpips")[1], mean(pictures, "borders")[1])
        (wanted, all_gradients), (reached, gradients) = found["windows", 20], found["canvas", RECOMMENDED_WEIGHT]
        if reached > wanted:
            failures.append(f"Intra-LPIPS of the canvas, width {width}: {reached:.3f} is worse than {wanted:.3f}")
        if 3 * gradients > all_gradients:
            failures.append(f"gradients of the canvas, width {width}: {gradients:.0f} are more than a third of {all_gradients:.0f}")


def preset(measure, failures):
    head("width", "`preset`", "UNet forwards", "gradients", "Intra-LPIPS", "borders")
    for width in measure.options.width:
        found = {}
        for preset in ("default", "fast"):
            # The steps are those of the preset.
            pictures, work = measure.figures(f"{preset}-{width}", preset=preset, width=width, num_inference_steps=None)
            counts = [statistics.mean(each["work"][count] for each in work) for count in ("unet_forwards", "perceptual_backwards")]
            found[preset] = {figure: mean(pictures, figure)[0] for figure in ("intra_lpips", "borders")}
            row(width, preset, *(f"{count:.0f}" for count in counts), mean(pictures, "intra_lpips")[1], mean(pictures, "borders")[1])
        for figure, value in found["fast"].items():
            if value > found["default"][figure]:
                failures.append(f"{figure} of the preset fast, width {width}: {value:.3f} is worse than {found['default'][figure]:.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["borders", "seam", "canvas", "preset"])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--server", default=ROOT / "target/release/syncdiffusion", type=Path)
    parser.add_argument("--worker", default=ROOT / "target/release/syncdiffusion-worker", type=Path)
    parser.add_argument("--prompts", type=int, default=12, help="the first of the 12; default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="of each prompt, for canvas; default: %(default)s")
    parser.add_argument("--steps", type=int, default=25, help="default: %(default)s")
    parser.add_argument("--width", type=int, nargs="+", help="default: 1024 2048, for canvas 2048")
    parser.add_argument("--keep", type=Path, help="keep the pictures in this folder, and do not draw those that are there")
    options = parser.parse_args()
    options.width = options.width or ([2048] if options.what == "canvas" else [1024, 2048])
    failures = []
    with tempfile.TemporaryDirectory() as temporary:
        measure = Measurement(options, options.keep or Path(temporary))
        {"borders": borders, "seam": seam, "canvas": canvas, "preset": preset}[options.what](measure, failures)
    print(f"\n`{options.model}`, {options.prompts} prompts, {options.steps} steps; perceptual network `{measure.net['model']}`")
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
