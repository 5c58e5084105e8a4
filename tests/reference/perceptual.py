"""LPIPS v0.1 on a VGG16-shaped network of any width, read from a bundle's `perceptual/` folder.

`perceptual/config.json` holds {"channels": [c1, .., c5]}, the width of the five convolution stages (64, 128, 256, 512, 512 in VGG16);
`perceptual/model.safetensors` holds `features.N.weight|bias`, named as in torchvision's VGG16, and `lin0.weight` .. `lin4.weight`,
each [1, C, 1, 1]. The formula is that of the `lpips` package 0.1.4; `difference_to_lpips_package` measures that it is.
"""

import contextlib
import io
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

CONVOLUTIONS_PER_STAGE = (2, 2, 3, 3, 3)
VGG16_CHANNELS = (64, 128, 256, 512, 512)


def convolution_shapes(channels: list[int]) -> dict[str, tuple[int, int]]:
    """The (outputs, inputs) of every convolution by its torchvision name, in order."""
    shapes, index, inputs = {}, 0, 3
    for outputs, count in zip(channels, CONVOLUTIONS_PER_STAGE):
        for _ in range(count):
            shapes[f"features.{index}"] = (outputs, inputs)
            index, inputs = index + 2, outputs  # a convolution and its ReLU
        index += 1  # the pooling between stages
    return shapes


class Lpips:
    """The perceptual distance of two pictures in -1..1, [n, 3, height, width] each: a tensor [n, 1, 1, 1]."""

    def __init__(self, channels: list[int], weights: dict[str, torch.Tensor]):
        self.weights = {name: weight.float() for name, weight in weights.items()}
        self.names = list(convolution_shapes(channels))
        self.shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
        self.scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)

    def to(self, device: torch.device) -> "Lpips":
        self.weights = {name: weight.to(device) for name, weight in self.weights.items()}
        self.shift, self.scale = self.shift.to(device), self.scale.to(device)
        return self

    @classmethod
    def from_bundle(cls, bundle: Path) -> "Lpips":
        folder = Path(bundle) / "perceptual"
        channels = json.loads((folder / "config.json").read_text())["channels"]
        return cls(channels, load_file(folder / "model.safetensors"))

    def features(self, picture: torch.Tensor) -> list[torch.Tensor]:
        """What relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3 give."""
        x, taps, names = (picture - self.shift) / self.scale, [], iter(self.names)
        for stage, count in enumerate(CONVOLUTIONS_PER_STAGE):
            if stage > 0:
                x = F.max_pool2d(x, kernel_size=2, stride=2)
            for _ in range(count):
                name = next(names)
                x = F.relu(F.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], padding=1))
            taps.append(x)
        return taps

    def __call__(self, picture: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        distance = 0
        for stage, (a, b) in enumerate(zip(self.features(picture), self.features(target))):
            difference = (unit_length(a) - unit_length(b)) ** 2
            distance = distance + F.conv2d(difference, self.weights[f"lin{stage}.weight"]).mean((2, 3), keepdim=True)
        return distance


def unit_length(features: torch.Tensor) -> torch.Tensor:
    """Features divided by their length over channels. At a pixel where all are 0 the square root has no gradient (NaN), which the
    ReLU before it replaces by 0."""
    return features / (torch.sqrt(torch.sum(features**2, dim=1, keepdim=True)) + 1e-10)


def difference_to_lpips_package() -> float:
    """The relative difference of `Lpips` to the `lpips` package: VGG16 at full width with random weights, the package's linear layers."""
    import lpips

    torch.manual_seed(0)
    with contextlib.redirect_stderr(io.StringIO()):
        package = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    convolutions = [module for module in package.net.modules() if isinstance(module, torch.nn.Conv2d)]
    weights = {f"lin{stage}.weight": layer.model[-1].weight for stage, layer in enumerate(package.lins)}
    for name, convolution in zip(convolution_shapes(VGG16_CHANNELS), convolutions, strict=True):
        weights |= {f"{name}.weight": convolution.weight, f"{name}.bias": convolution.bias}
    a, b = torch.rand(2, 2, 3, 48, 80) * 2 - 1
    with torch.no_grad():
        theirs, ours = package(a, b), Lpips(VGG16_CHANNELS, weights)(a, b)
    return ((theirs - ours).abs() / theirs).max().item()
