#!/usr/bin/env python3
"""quality.py borders|seam|canvas|preset|prompts|anchor|photo [--model MODEL] [--prompts N] [--seeds N] [--steps N] [--width N ...]
           [--sync-weight N ...] [--keep DIR]

Draws panoramas with inputs that the hosted model does not have, and with those that they are compared with; measures them with
`syncdiffusion evaluate`; prints a table in Markdown, and fails if a figure does not pass. docs/inputs.md has the tables of the demo model.

borders  kinks at the borders of windows, even and smooth, at strides 8, 16 and 32: smooth must be at 1.25 at most
seam     the kink where the ends meet: of seamless panoramas 1.25 at most, of the original's loop more than 10, or the figure says nothing
canvas   Intra-LPIPS of all windows, without synchronisation, and of the canvas at several weights, with the mean difference to the windows
         from picture to picture and its standard error: at the recommended weight the canvas must be no worse than the windows, with a
         third of the gradients
preset   the same and borders of the presets, of the fast one at other weights, too, where they are asked for; the fast one must be no
         worse (no worse: the mean difference is at most two of its standard errors)
prompts  brightness of eight columns from a text of day to one of night: without synchronisation it must fall from each to the next
anchor   LPIPS and the distance of histograms to a picture of night and one of sunset, drawn here: both must fall when it is the anchor
photo    a picture extended to both sides: the kink at its edges must be 1.25 at most, what is kept 30 dB from it or better, and the
         LPIPS of the new parts to it lower with it as the anchor than without synchronisation
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from pictures import Picture

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
RECOMMENDED_WEIGHT = 30
# Of the panoramas that follow a picture.
COMMON = "a landscape"
WINDOW = 512
# Columns at the sides of a kept picture over which it passes into what is drawn.
TAPER = 16
KEPT = 30


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
                flags = [flag for key, value in given.items() for flag in flags_of(key, value)]
                picture = folder / f"{number:02}-{seed}.png"
                printed = self.folder / f"{name}-{picture.stem}.json"
                if not (picture.exists() and printed.exists()):
                    printed.write_text(self.run("generate", *flags, "--json", "--output", picture).splitlines()[-1])
                work.append(json.loads(printed.read_text()))
                print(".", end="", file=sys.stderr, flush=True)
        report = json.loads(self.run("evaluate", folder, "--json"))
        self.net = report["net"]
        return report["pictures"], work


    def drawn(self, name, seeds, **inputs):
        """The same, as pictures."""
        self.figures(name, seeds, **inputs)
        return [Picture.read(file) for file in sorted((self.folder / name).glob("*.png"))]

    def distance(self, name, anchor, parts):
        """The mean LPIPS of squares to an anchor: Intra-LPIPS of pictures that have one beside the other."""
        folder = self.folder / f"beside-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        for number, part in enumerate(parts):
            anchor.beside(part).write(folder / f"{number:03}.png")
        return mean(json.loads(self.run("evaluate", folder, "--json"))["pictures"], "intra_lpips")[0]


def flags_of(key, value):
    """The flags of an input; several for a list, none for nothing."""
    if value is None:
        return []
    if isinstance(value, list):
        return [flag for each in value for flag in flags_of(key, each)]
    return [f"--{key.replace('_', '-')}={value if isinstance(value, (str, Path)) else str(value).lower()}"]


def mean(pictures, figure, digits=3):
    """The mean of a figure, and the same with its standard deviation as a cell."""
    values = [picture[figure] for picture in pictures if picture[figure] is not None]
    if not values:
        sys.exit(f"no picture has a figure for `{figure}`: they are too narrow")
    deviation = f" ±{statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return statistics.mean(values), f"{statistics.mean(values):.{digits}f}{deviation}"


def difference(pictures, before, figure):
    """The mean difference of a figure of pictures to that of as many others, from picture to picture, and its standard error."""
    pairs = [(picture[figure], other[figure]) for picture, other in zip(pictures, before, strict=True)]
    differences = [one - other for one, other in pairs if None not in (one, other)]
    error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else 0.0
    return statistics.mean(differences), error


def difference_cell(pictures, before, figure, digits):
    value, error = difference(pictures, before, figure)
    # Zero has no sign.
    return f"{round(value, digits) + 0.0:.{digits}f} ±{error:.{digits}f}"


def is_worse(pictures, before, figure):
    """Whether a figure of pictures is greater than that of as many others, by more than chance: two standard errors of the difference."""
    value, error = difference(pictures, before, figure)
    return value > 2 * error


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
                value, cell = mean(pictures, "borders", digits=2)
                cells.append(cell)
                if blend == "smooth" and value > MOST:
                    failures.append(f"borders of smooth windows at stride {stride}, width {width}: {value:.2f} is more than {MOST}")
            row(width, stride, *cells)


def seam(measure, failures):
    head("width", "stride", "`seamless`", "`loop_closure`", "borders of `seamless`")
    for width in measure.options.width:
        for stride in STRIDES:
            ring, _ = measure.figures(f"seamless-{width}-{stride}", seamless=True, width=width, stride=stride)
            value, cell = mean(ring, "seam", digits=2)
            if value > MOST:
                failures.append(f"seam at stride {stride}, width {width}: {value:.2f} is more than {MOST}")
            original = ""
            if stride == 16:
                loop, _ = measure.figures(f"loop-{width}-{stride}", loop_closure=True, width=width, stride=stride)
                loop_value, original = mean(loop, "seam", digits=1)
                if loop_value <= ORIGINAL_LOOP:
                    failures.append(f"seam of the original's loop: {loop_value:.2f} is no more than {ORIGINAL_LOOP}")
            row(width, stride, cell, original, mean(ring, "borders", digits=2)[1])


def canvas(measure, failures):
    seeds = range(1, measure.options.seeds + 1)
    head("width", "`sync_mode`", "`sync_weight`", "gradients", "Intra-LPIPS", "difference", "borders")
    weights = [weight for weight in measure.options.sync_weight or [20] if weight != RECOMMENDED_WEIGHT]
    settings = [("windows", 20), ("windows", 0), ("windows", 10), *(("canvas", weight) for weight in [*weights, RECOMMENDED_WEIGHT])]
    for width in measure.options.width:
        found = {}
        for mode, weight in settings:
            name = f"{mode}-{weight}-{width}"
            pictures, work = measure.figures(name, seeds, sync_mode=mode, sync_weight=weight, width=width)
            gradients = statistics.mean(each["work"]["perceptual_backwards"] for each in work)
            found[mode, weight] = pictures, gradients
            original = found["windows", 20][0]
            apart = "" if pictures is original else difference_cell(pictures, original, "intra_lpips", digits=4)
            figures = mean(pictures, "intra_lpips")[1], apart, f"{mean(pictures, 'borders')[0]:.2f}"
            row(width, mode, weight, f"{gradients:.0f}", *figures)
        (wanted, all_gradients), (reached, gradients) = found["windows", 20], found["canvas", RECOMMENDED_WEIGHT]
        if is_worse(reached, wanted, "intra_lpips"):
            failures.append(f"Intra-LPIPS of the canvas, width {width}, is worse than that of the windows")
        if 3 * gradients > all_gradients:
            failures.append(f"gradients of the canvas, width {width}: {gradients:.0f} are more than a third of {all_gradients:.0f}")


def preset(measure, failures):
    head("width", "`preset`", "`sync_weight`", "UNet forwards", "gradients", "Intra-LPIPS", "difference", "borders")
    settings = [("default", None), ("fast", None), *(("fast", weight) for weight in measure.options.sync_weight or [])]
    for width in measure.options.width:
        found = {}
        for preset, weight in settings:
            name = f"{preset}-{width}" if weight is None else f"{preset}-{weight}-{width}"
            # The steps are those of the preset, and the weight, too, unless another is asked for.
            given = {"preset": preset, "width": width, "num_inference_steps": None, "sync_weight": weight}
            pictures, work = measure.figures(name, **given)
            counts = [statistics.mean(each["work"][count] for each in work) for count in ("unet_forwards", "perceptual_backwards")]
            if weight is None:
                found[preset] = pictures
            original = found["default"]
            apart = "" if pictures is original else difference_cell(pictures, original, "intra_lpips", digits=3)
            figures = mean(pictures, "intra_lpips")[1], apart, f"{mean(pictures, 'borders')[0]:.2f}"
            row(width, preset, "" if weight is None else weight, *(f"{count:.0f}" for count in counts), *figures)
        for figure in ("intra_lpips", "borders"):
            if is_worse(found["fast"], found["default"], figure):
                failures.append(f"{figure} of the preset fast, width {width}, is worse than that of the default")


def squares(picture):
    return [picture.columns(left, left + WINDOW) for left in range(0, picture.width - WINDOW + 1, WINDOW)]


def prompts(measure, failures):
    seeds = range(1, measure.options.seeds + 1)
    head("width", "`sync_weight`", "seed", "brightness of eight columns", "Intra-LPIPS")
    for width in measure.options.width:
        for weight in (0, 10, 20):
            name = f"prompts-{weight}-{width}"
            texts = {"prompt": "a beach with palms", "prompts": ["by day", "at night"]}
            pictures = measure.drawn(name, seeds, width=width, sync_weight=weight, **texts)
            figures, _ = measure.figures(name, seeds, width=width, sync_weight=weight, **texts)
            for seed, picture, figure in zip(seeds, pictures, figures, strict=True):
                part = width // 8
                columns = [picture.columns(part * i, part * (i + 1)).brightness() for i in range(8)]
                row(width, weight, seed, " ".join(f"{column:.2f}" for column in columns), f"{figure['intra_lpips']:.3f}")
                if weight == 0 and any(b > a for a, b in itertools.pairwise(columns)):
                    failures.append(f"brightness with seed {seed}, width {width}: it does not fall from each column to the next")


def anchor(measure, failures):
    seeds = range(1, measure.options.seeds + 1)
    head("picture", "width", "`sync_weight`", "anchor", "LPIPS to it", "histograms", "Intra-LPIPS")
    for name, prompt in (("night", "a city at night"), ("sunset", "a beach with palms at sunset")):
        given = measure.drawn(f"anchor-{name}", [101], prompt=prompt, width=WINDOW)[0]
        file = measure.folder / f"anchor-{name}.png"
        given.write(file)
        for width in measure.options.width:
            found = {}
            for weight, picture in ((20, None), (10, file), (20, file)):
                setting = f"to-{name}-{weight}-{'anchor' if picture else 'none'}-{width}"
                inputs = {"prompt": COMMON, "width": width, "sync_weight": weight, "anchor_image": picture}
                pictures = measure.drawn(setting, seeds, **inputs)
                figures, _ = measure.figures(setting, seeds, **inputs)
                parts = [part for each in pictures for part in squares(each)]
                lpips = measure.distance(setting, given, parts)
                histograms = statistics.mean(given.histogram_distance(each) for each in pictures)
                found[weight, picture is not None] = lpips, histograms
                row(name, width, weight, "yes" if picture else "no", f"{lpips:.3f}", f"{histograms:.3f}", mean(figures, "intra_lpips")[1])
            for what, without, reached in zip(("LPIPS", "histograms"), found[20, False], found[20, True], strict=True):
                if reached >= without:
                    failures.append(f"{what} to {name}, width {width}: {reached:.3f} with it is no less than {without:.3f} without")


def photo(measure, failures):
    seeds = range(1, measure.options.seeds + 1)
    head("`sync_weight`", "kept, dB to the picture", "without its sides", "kink at its edges", "LPIPS of the new parts to it")
    given = measure.drawn("photo", [101], prompt="a lake at dawn", width=WINDOW)[0]
    file = measure.folder / "photo.png"
    given.write(file)
    left, width = WINDOW, 3 * WINDOW
    found = {}
    for weight in (0, 10, 20):
        pictures = measure.drawn(f"extended-{weight}", seeds, prompt=COMMON, width=width, image=file, sync_weight=weight)
        kept = [each.columns(left, left + WINDOW) for each in pictures]
        psnr, inner = (
            statistics.mean(each.columns(side, WINDOW - side).psnr(given.columns(side, WINDOW - side)) for each in kept)
            for side in (0, TAPER)
        )
        # As `evaluate` has it: against the grid of latents.
        edges = (left - 1, left + WINDOW - 1)
        grid = [column for column in range(7, width - 3, 8) if column not in edges]
        kinks = [
            statistics.mean(map(each.kink, edges)) / statistics.mean(map(each.kink, grid))
            for each in pictures
        ]
        new = [part for each in pictures for part in (each.columns(0, WINDOW), each.columns(left + WINDOW, width))]
        found[weight] = measure.distance(f"new-{weight}", given, new), statistics.mean(kinks)
        row(weight, f"{psnr:.1f}", f"{inner:.1f}", f"{found[weight][1]:.3f}", f"{found[weight][0]:.3f}")
        if inner < KEPT:
            failures.append(f"what is kept with `sync_weight` {weight}: {inner:.1f} dB are less than {KEPT}")
        if found[weight][1] > MOST:
            failures.append(f"kink at the edges with `sync_weight` {weight}: {found[weight][1]:.2f} is more than {MOST}")
    if found[20][0] >= found[0][0]:
        failures.append(f"LPIPS of the new parts: {found[20][0]:.3f} with the anchor is no less than {found[0][0]:.3f} without")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(WHAT))
    parser.add_argument("--model", default="demo")
    parser.add_argument("--server", default=ROOT / "target/release/syncdiffusion", type=Path)
    parser.add_argument("--worker", default=ROOT / "target/release/syncdiffusion-worker", type=Path)
    parser.add_argument("--prompts", type=int, default=12, help="the first of the 12; default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="of each prompt, where a row has several; default: %(default)s")
    parser.add_argument("--steps", type=int, default=25, help="default: %(default)s")
    parser.add_argument("--width", type=int, nargs="+", help="default: 1024 2048; for canvas and prompts 2048, for anchor 1024")
    weights = "of the canvas beside the recommended one, default: 20; of more rows of the preset fast, default: none"
    parser.add_argument("--sync-weight", type=int, nargs="+", help=weights)
    parser.add_argument("--keep", type=Path, help="keep the pictures in this folder, and do not draw those that are there")
    options = parser.parse_args()
    options.width = options.width or {"canvas": [2048], "prompts": [2048], "anchor": [1024]}.get(options.what, [1024, 2048])
    if options.what in ("prompts", "anchor", "photo"):
        options.prompts = 1  # They have prompts of their own.
    failures = []
    with tempfile.TemporaryDirectory() as temporary:
        measure = Measurement(options, options.keep or Path(temporary))
        WHAT[options.what](measure, failures)
    print(f"\n`{options.model}`, {options.prompts} prompts, {options.steps} steps; perceptual network `{measure.net['model']}`")
    if failures:
        sys.exit("\n".join(failures))


WHAT = {
    "borders": borders, "seam": seam, "canvas": canvas, "preset": preset, "prompts": prompts, "anchor": anchor, "photo": photo,
}

if __name__ == "__main__":
    main()
