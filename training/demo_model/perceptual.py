"""The perceptual net: VGG16's layout, narrow, learnt as a classifier of scenes; its features, weighted, are the distance of LPIPS.

The classifier stays outside the bundle. It is what `evaluate` asks whether a picture shows what its prompt says.
"""

import json

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from . import data
from .loop import Recipe, Ring, train
from .scene import GROUPS, LABELS
from .vae import as_input
from .work import Work

CHANNELS = (8, 16, 32, 64, 64)
# Layers of torchvision's vgg16().features, by number.
CONVOLUTIONS = {0: 0, 2: 0, 5: 1, 7: 1, 10: 2, 12: 2, 14: 2, 17: 3, 19: 3, 21: 3, 24: 4, 26: 4, 28: 4}
POOLS = (4, 9, 16, 23, 30)
TAPS = (3, 8, 15, 22, 29)
# LPIPS's, from -1..1.
SHIFT, DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
TYPICAL = 0.6
"""The distance of two different scenes, about what LPIPS with VGG16 gives two photographs."""


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        layers, before = [], 3
        for n in range(31):
            if n in CONVOLUTIONS:
                width = CHANNELS[CONVOLUTIONS[n]]
                convolution = nn.Conv2d(before, width, 3, padding=1)
                nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
                nn.init.zeros_(convolution.bias)
                layers.append(convolution)
                before = width
            else:
                layers.append(nn.MaxPool2d(2) if n in POOLS else nn.ReLU())
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(before * 6, len(LABELS))
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the labels: x [n, 3, h, w] in -1..1 to [n, 32]."""
        h = self.features((x - self.shift) / self.deviation)
        return self.head(torch.cat([h.mean((2, 3)), h.amax((2, 3)), F.adaptive_avg_pool2d(h, (4, 1)).flatten(1)], 1))

    def taps(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The features that LPIPS compares, each of unit length in every place."""
        x, out = (x - self.shift) / self.deviation, []
        for n, layer in enumerate(self.features[: TAPS[-1] + 1]):
            x = layer(x)
            if n in TAPS:
                out.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return out


def run(ring: Ring, work: Work, count: int, recipe: Recipe):
    """Trains it and writes the bundle's `perceptual`, and `classifier.pt` among the checkpoints."""
    _, small = data.pictures(work, count)
    labels = torch.from_numpy(np.stack([scene.labels() for scene in work.scenes()]))
    torch.manual_seed(0)
    model = Classifier().to(ring.device)

    def loss(step: int, rng: np.random.Generator):
        i = np.sort(rng.integers(0, count - data.HELD_OUT, ring.share(32)))
        x = as_input(small[i]).to(ring.device)
        if step % 2 == 0:
            x = F.avg_pool2d(x, 2)
        elif rng.uniform() < 0.5:
            top, left = rng.integers(0, 65, 2)
            x = x[:, :, top : top + 192, left : left + 192]
        else:
            x = F.interpolate(x, size=192, mode="bilinear", antialias=True)
        if rng.uniform() < 0.5:
            x = x.flip(-1)
        return F.binary_cross_entropy_with_logits(model(x), labels[i].to(ring.device)), {}

    mean = train("perceptual", ring, model, recipe, work.checkpoints / "perceptual.pt", loss)
    if ring.rank == 0:
        torch.save(mean.state_dict(), work.checkpoints / "classifier.pt")
        x, y = as_input(small[-data.HELD_OUT :]).to(ring.device), labels[-data.HELD_OUT :]
        with torch.no_grad():
            print("perceptual: right on held-out renders: " + ", ".join(f"{g} {100 * s:.0f} %" for g, s in accuracy(mean(x).cpu(), y).items()))
            _write(mean, x, y, work)


def load(work: Work) -> Classifier:
    model = Classifier()
    model.load_state_dict(torch.load(work.checkpoints / "classifier.pt", map_location="cpu"))
    return model.eval()


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Of each group of labels, the share of pictures where the likeliest is the right one, among those that have a label in it."""
    at, out = 0, {}
    for group, names in GROUPS.items():
        part = slice(at, at + len(names))
        labelled = labels[:, part].any(1)
        out[group] = float((logits[labelled, part].argmax(1) == labels[labelled, part].argmax(1)).float().mean())
        at += len(names)
    return out


def _write(model: Classifier, x: torch.Tensor, labels: torch.Tensor, work: Work):
    """Weighs each tap by how well its distances follow the differences of labels, so that two scenes are TYPICAL apart."""
    taps = [torch.cat(parts) for parts in zip(*(model.taps(part) for part in x.split(30)), strict=True)]
    a, b = torch.randint(0, len(x), (2, 600), generator=torch.Generator().manual_seed(0))
    distances = torch.stack([(tap[a] - tap[b]).square().sum(1).mean((1, 2)) for tap in taps], 1).cpu()
    importance = torch.cat([torch.full((n,), w) for n, w in ((5, 1.0), (8, 1.0), (3, 0.5), (4, 0.5), (5, 1.0), (7, 0.2))])
    apart = ((labels[a] - labels[b]).abs() * importance).sum(1)
    follows = np.array([max(0.05, np.corrcoef(distances[:, k], apart)[0, 1]) for k in range(5)])
    shares = follows / follows.sum()
    tensors = {f"features.{name}": value.half().contiguous() for name, value in model.features.state_dict().items()}
    for k, tap in enumerate(taps):
        weight = float(shares[k] * TYPICAL / distances[:, k].mean())
        tensors[f"lin{k}.weight"] = torch.full((1, tap.shape[1], 1, 1), weight).half()
    folder = work.bundle / "perceptual"
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"channels": list(CHANNELS)}) + "\n")
