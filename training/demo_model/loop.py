"""The loop all stages share: one process a core (or one GPU), gradients averaged, an EMA of the weights, checkpoints to go on from.

What a step sees depends on the seed and its number only, so a training that was interrupted goes on as if it had not been.
"""

import copy
import math
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from .muon import Muon
from .work import Progress


@dataclass(frozen=True)
class Recipe:
    """How long and how fast a stage learns."""

    steps: int
    peak_rate: float
    final_rate: float
    ema: float = 0.999
    warm_up: int = 100
    weight_decay: float = 0.01
    muon: bool = False
    """Matrices and convolutions by Muon, at this rate; the rest by AdamW, at half of it."""
    seed: int = 0
    """Of what is drawn at random. Another round of a stage takes another, or it would see the same noise again."""

    def rate(self, step: int) -> float:
        """A linear start, then half a cosine from the peak to the final rate."""
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return min(1.0, (step + 1) / self.warm_up) * (self.final_rate + (self.peak_rate - self.final_rate) * fall)


@dataclass(frozen=True)
class Ring:
    """The processes that train together."""

    rank: int
    size: int
    device: torch.device

    def share(self, batch: int) -> int:
        """This process's part of a batch."""
        return max(1, batch // self.size)


def together(function: Callable, *args):
    """Runs `function(ring, *args)` in a process a core with one thread each, or in this one where there is a GPU."""
    if torch.cuda.is_available():
        function(Ring(0, 1, torch.device("cuda")), *args)
        return
    size = os.cpu_count() or 1
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_join, (size, port, function, args), nprocs=size)


def _join(rank: int, size: int, port: int, function: Callable, args: tuple):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    function(Ring(rank, size, torch.device("cpu")), *args)
    dist.destroy_process_group()


def train(
    stage: str,
    ring: Ring,
    model: nn.Module,
    recipe: Recipe,
    checkpoint: Path,
    loss: Callable[[int, np.random.Generator], tuple[torch.Tensor, dict[str, float]]],
    minutes_between: float = 4.0,
) -> nn.Module:
    """Trains `model`, from its checkpoint where there is one, and returns the mean of its weights over time.

    `loss(step, rng)` gives the loss of this process's part of a batch and figures to show.
    """
    torch.manual_seed(ring.rank)
    mean = copy.deepcopy(model).requires_grad_(False)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizers = _optimizers(model, recipe)
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=ring.device)
        first = saved["step"]
        model.load_state_dict(saved["model"])
        mean.load_state_dict(saved["mean"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)

    def save(step: int):
        if ring.rank == 0:
            state = {"step": step, "model": model.state_dict(), "mean": mean.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}
            torch.save(state, checkpoint.with_suffix(".part"))
            os.replace(checkpoint.with_suffix(".part"), checkpoint)

    progress, saved_at, figures = Progress(stage, recipe.steps, first), time.monotonic(), []
    for step in range(first, recipe.steps):
        rng = np.random.default_rng([3, step, ring.rank, recipe.seed])
        torch.manual_seed(recipe.seed * 1_000_003 + step * ring.size + ring.rank)
        value, shown = loss(step, rng)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        value.backward()
        norm = _average(parameters, ring)
        rate = recipe.rate(step)
        if math.isfinite(norm):
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["factor"]
                optimizer.step()
        _follow(mean, model, min(recipe.ema, (step + 1) / (step + 10)))
        figures.append({"loss": float(value.detach()), "norm": norm} | shown)
        if ring.rank == 0:
            done = step + 1

            def say(rate=rate):
                line = "  ".join(f"{name} {np.nanmean([f[name] for f in figures if name in f]):.4f}" for name in {k: 0 for f in figures for k in f})
                figures.clear()
                return f"rate {rate:.1e}  {line}"

            progress.at(done, say)
            if time.monotonic() - saved_at > minutes_between * 60:
                save(done)
                saved_at = time.monotonic()
    save(recipe.steps)
    return mean


def _optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [
        p for name, p in named if recipe.muon and p.ndim >= 2 and min(p.shape[0], p[0].numel()) >= 32 and "conv_in" not in name and "conv_out" not in name
    ]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in chosen]
    out: list[torch.optim.Optimizer] = []
    if matrices:
        out.append(Muon([{"params": matrices, "factor": 1.0}], weight_decay=recipe.weight_decay))
    factor = 0.5 if matrices else 1.0
    out.append(torch.optim.AdamW([{"params": rest, "factor": factor}], lr=1.0, betas=(0.9, 0.99), weight_decay=recipe.weight_decay))
    return out


def _average(parameters: list[nn.Parameter], ring: Ring, limit: float = 1.0) -> float:
    """Averages the gradients over the processes, and shortens them where they are longer than `limit`; returns their length."""
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    flat = torch.cat([p.grad.flatten() for p in parameters])
    if ring.size > 1:
        dist.all_reduce(flat)
        flat /= ring.size
    norm = float(flat.norm())
    flat *= min(1.0, limit / (norm + 1e-6))
    at = 0
    for p in parameters:
        p.grad.copy_(flat[at : at + p.numel()].view_as(p))
        at += p.numel()
    return norm


def _follow(mean: nn.Module, model: nn.Module, decay: float):
    with torch.no_grad():
        torch._foreach_lerp_(list(mean.parameters()), list(model.parameters()), 1 - decay)
