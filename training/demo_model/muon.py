"""Muon: momentum whose matrices are made orthogonal before the step (https://kellerjordan.github.io/posts/muon).

Convolutions count as matrices of output channels by all the rest. torch.optim has one for two dimensions only.
"""

import torch
import torch.distributed as dist


def orthogonal(matrix: torch.Tensor, rounds: int = 5) -> torch.Tensor:
    """About U V^T of the singular value decomposition U S V^T, by a quintic Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(rounds):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.T


class Muon(torch.optim.Optimizer):
    """Its rate is that of AdamW: a step's root mean square is a fifth of it, about what AdamW's is (https://arxiv.org/abs/2502.16982).

    The processes of a group share the matrices among them, and tell each other the steps.
    """

    def __init__(self, groups, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(groups, {"lr": 1.0, "momentum": momentum, "weight_decay": weight_decay, "factor": 1.0})

    @torch.no_grad()
    def step(self, closure=None):
        rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        for group in self.param_groups:
            parameters = group["params"]
            all_steps = torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)
            steps = all_steps.split([p.numel() for p in parameters])
            for k, (p, step) in enumerate(zip(parameters, steps, strict=True)):
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                velocity = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                if k % size == rank:
                    step.copy_(orthogonal(p.grad.lerp(velocity, group["momentum"]).flatten(1)).flatten())
            if size > 1:
                dist.all_reduce(all_steps)
            for p, step in zip(parameters, steps, strict=True):
                rows = p.shape[0]
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(step.view_as(p), alpha=-group["lr"] * 0.2 * max(rows, p.numel() // rows) ** 0.5)
