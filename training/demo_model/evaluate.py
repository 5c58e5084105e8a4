"""How good a bundle is, in tables and sheets of pictures: `RESULTS.md` and its pictures in the work folder's `results/`."""

import subprocess
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from . import bundle, captions, data, perceptual, vae
from .sample import PROMPTS, Sampler, sheet
from .scene import GROUPS
from .work import Progress, Work

PANORAMAS = (
    "a landscape",
    "a photo of a mountain range at twilight",
    "natural landscape in anime style illustration",
    "a film photo of a beachfront with palm trees",
    "silhouette wallpaper of a dreamy scene with shooting stars",
    "a photo of a forest with a misty fog",
)
SEEDS = (1, 2, 3)
WEIGHTS = (0, 20)
STEPS, GUIDANCE = 25, 5.0
ASKED = ("light", "biome", "season")
"""What pictures should agree with their prompts in; the goal is GOAL of what renders reach."""
GOAL = 0.85


def run(work: Work, count: int, before: Path, server: Path, captions_asked: int = 96):
    """Compares the bundle with `before` and draws its panoramas with the program `server`."""
    parts = [
        f"# The demo model, measured\n\n`make demo-model STAGE=evaluate`: {STEPS} steps, guidance {GUIDANCE:g}. "
        f"The weights take {bundle.size(work.bundle) / 1e6:.1f} MB.",
        _pictures(work, before),
        _reconstructions(work, count),
        _agreement(work, captions_asked),
        _panoramas(work, server),
    ]
    (work.results / "RESULTS.md").write_text("\n\n".join(parts) + "\n")
    print(f"evaluate: {work.results / 'RESULTS.md'}")


def table(head: list[str], rows: list[list]) -> str:
    """A table of Markdown."""
    cells = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _pictures(work: Work, before: Path) -> str:
    drawn = [Sampler(folder).draw(list(PROMPTS), seed=0, steps=STEPS, guidance=GUIDANCE) for folder in (before, work.bundle)]
    pairs = [picture for pair in zip(*drawn, strict=True) for picture in pair]
    labels = [label for prompt in PROMPTS for label in (f"before: {prompt}", f"now: {prompt}")]
    sheet(pairs, labels, 4, width=240).save(work.results / "pictures.jpg", quality=88)
    return "## Twelve prompts\n\nThe bundle before and this one, 512x512, the same seed.\n\n![twelve prompts](pictures.jpg)"


def _reconstructions(work: Work, count: int) -> str:
    large, _ = data.pictures(work, count)
    return f"## VAE\n\nPSNR of {vae.JUDGED} held-out renders of 512x512, encoded and decoded: {vae.psnr(vae.load(work), large):.2f} dB (goal 32)."


@torch.no_grad()
def _agreement(work: Work, n: int) -> str:
    """Captions of scenes that were never rendered: do the pictures show what is stated, and do renders of those scenes?"""
    classifier, sampler = perceptual.load(work), Sampler(work.bundle)
    scenes = [data.scene_of(10_000_000 + k) for k in range(n)]
    texts, stated = zip(*(captions.caption(np.random.default_rng([7, k]), scene) for k, scene in enumerate(scenes)), strict=True)
    stated = torch.from_numpy(np.stack(stated))
    progress, sources = Progress("agreement", n), {"pictures": [], "renders": []}
    for k in range(0, n, 12):
        sources["pictures"].append(sampler.draw(list(texts[k : k + 12]), seed=k, steps=STEPS, guidance=GUIDANCE))
        sources["renders"].append(np.stack([data.picture_of(10_000_000 + i) for i in range(k, min(k + 12, n))]))
        progress.at(min(n, k + 12))
    scores = {name: _shown(classifier, np.concatenate(pictures), stated) for name, pictures in sources.items()}
    rows = []
    for group in GROUPS:
        picture, render = scores["pictures"][group], scores["renders"][group]
        goal = ("met" if picture >= GOAL * render else "not met") if group in ASKED else ""
        rows.append([group, picture, render, picture / max(render, 1e-9), goal])
    return (
        f"## Agreement with the prompts\n\n{n} captions of scenes that were never rendered. Where a caption states a thing, the share of pictures in which "
        f"the classifier sees it; the same of renders of those scenes. The goal is {GOAL:.0%} of the renders' share.\n\n"
        + table(["stated", "pictures", "renders", "ratio", "goal"], rows)
    )


@torch.no_grad()
def _shown(classifier: perceptual.Classifier, pictures: np.ndarray, stated: torch.Tensor) -> dict[str, float]:
    logits = torch.cat([classifier(F.avg_pool2d(vae.as_input(part), 2)) for part in np.array_split(pictures, max(1, len(pictures) // 12))])
    return perceptual.accuracy(logits, stated)


# -- panoramas


def windows(panorama: np.ndarray, size: int = 512) -> list[np.ndarray]:
    """Squares side by side."""
    return [panorama[:, left : left + size] for left in range(0, panorama.shape[1] - size + 1, size)]


def mean_over_pairs(items: list, distance) -> float:
    return float(np.mean([distance(a, b) for a, b in combinations(items, 2)]))


@torch.no_grad()
def intra_lpips(classifier: perceptual.Classifier, panorama: np.ndarray, weights: list[torch.Tensor]) -> float:
    """Mean distance of the squares by the bundle's own perceptual net."""
    taps = [classifier.taps(vae.as_input(part[None])) for part in windows(panorama)]
    return mean_over_pairs(taps, lambda a, b: float(sum(F.conv2d((x - y) ** 2, w).mean() for x, y, w in zip(a, b, weights, strict=True))))


def histogram_distance(panorama: np.ndarray) -> float:
    """Mean half L1 distance of 6x6x6 colour histograms of the squares: 0 for the same colours, 1 for none in common."""

    def histogram(part: np.ndarray) -> np.ndarray:
        r, g, b = np.moveaxis(part // 43, -1, 0).astype(int)
        counts = np.bincount((r * 36 + g * 6 + b).ravel(), minlength=216)
        return counts / counts.sum()

    return mean_over_pairs([histogram(part) for part in windows(panorama)], lambda a, b: float(np.abs(a - b).sum() / 2))


def gram_distance(panorama: np.ndarray) -> float:
    """Mean relative distance of the squares' Gram matrices of colours and of steps from pixel to pixel at three scales: no net involved."""

    def gram(part: np.ndarray) -> torch.Tensor:
        features = []
        for scale in (2, 8, 32):
            x = F.avg_pool2d(vae.as_input(part[None]), scale)
            steps = (x[:, :, 1:, 1:] - x[:, :, :-1, 1:]) * 3, (x[:, :, 1:, 1:] - x[:, :, 1:, :-1]) * 3
            features.append(F.interpolate(torch.cat([x[:, :, 1:, 1:], *steps], 1), size=(64, 64), mode="bilinear"))
        flat = torch.cat(features, 1)[0].flatten(1)
        return flat @ flat.T / flat.shape[1]

    grams = [gram(part) for part in windows(panorama)]
    return mean_over_pairs(grams, lambda a, b: float((a - b).norm() / (a.norm() + b.norm()) * 2))


def _panoramas(work: Work, server: Path) -> str:
    classifier = perceptual.load(work)
    tensors = load_file(work.bundle / "perceptual" / "model.safetensors")
    weights = [tensors[f"lin{k}.weight"].float() for k in range(5)]
    measures = {"Intra-LPIPS": lambda p: intra_lpips(classifier, p, weights), "histogram": histogram_distance, "Gram": gram_distance}
    progress, done = Progress("panoramas", len(PANORAMAS) * len(SEEDS) * len(WEIGHTS)), 0
    rows, shown = [], []
    for prompt in PANORAMAS:
        for weight in WEIGHTS:
            figures = []
            for seed in SEEDS:
                panorama = draw_panorama(server, work.bundle, prompt, weight, seed)
                figures.append([measure(panorama) for measure in measures.values()])
                if seed == SEEDS[0]:
                    shown.append((panorama, f"{prompt}, sync_weight {weight}"))
                done += 1
                progress.at(done)
            rows.append([prompt, weight, *(float(f) for f in np.mean(figures, 0))])
    for weight in WEIGHTS:
        rows.append(["all", weight, *(float(np.mean([row[c] for row in rows if row[1] == weight and row[0] != "all"])) for c in range(2, 5))])
    sheet([p for p, _ in shown], [label for _, label in shown], 1, width=1024).save(work.results / "panoramas.jpg", quality=88)
    return (
        f"## Panoramas\n\n512x2048, sync_threshold 5, means of seeds {', '.join(map(str, SEEDS))}. Distances between the "
        "four squares of a panorama; smaller is more of one piece.\n\n" + table(["prompt", "sync_weight", *measures], rows) + "\n\n![panoramas](panoramas.jpg)"
    )


def draw_panorama(server: Path, folder: Path, prompt: str, weight: float, seed: int) -> np.ndarray:
    """uint8 [512, 2048, 3] by `syncdiffusion generate`."""
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "panorama.png"
        settings = {"prompt": prompt, "sync-weight": weight, "seed": seed, "num-inference-steps": STEPS, "guidance-scale": GUIDANCE}
        flags = [f"--{name}={value}" for name, value in settings.items()]
        subprocess.run([server, "generate", f"--model={folder}", *flags, f"--output={out}"], check=True, capture_output=True)
        return np.asarray(Image.open(out).convert("RGB"))
