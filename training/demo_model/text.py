"""The text encoder: a small CLIP text model that learns to say which labels a caption states, and is then kept as it is."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from . import captions, scene, tokenizer
from .loop import Recipe, Ring, train
from .scene import LABELS
from .work import Work


class Trained(nn.Module):
    def __init__(self, words: int):
        super().__init__()
        self.encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=words,
                hidden_size=128,
                intermediate_size=512,
                num_hidden_layers=3,
                num_attention_heads=4,
                max_position_embeddings=77,
                hidden_act="gelu",
                layer_norm_eps=1e-5,
                bos_token_id=words - 2,
                eos_token_id=words - 1,
                pad_token_id=1,
                projection_dim=128,
            )
        )
        self.head = nn.Linear(128, len(LABELS))


def _examples(words, seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    texts, stated = [], []
    for k in range(n):
        rng = np.random.default_rng([5, seed, k])
        text, labels = captions.caption(rng, scene.sample(rng))
        texts.append(text)
        stated.append(labels)
    return torch.from_numpy(tokenizer.encode(words, texts)), torch.from_numpy(np.stack(stated))


def run(ring: Ring, work: Work, recipe: Recipe):
    """Trains it and writes the bundle's `text_encoder`."""
    words = tokenizer.load(work)
    n = len(words)
    ids, stated = _examples(words, 0, 30_000)
    torch.manual_seed(0)
    model = Trained(n).to(ring.device)

    def loss(step: int, rng: np.random.Generator):
        i = rng.integers(0, len(ids), ring.share(96))
        x, y = ids[i].clone(), stated[i].to(ring.device)
        x = x[:, : int((x != 0).sum(1).max()) + 6]  # it is causal: what follows the last read position changes nothing
        end = (x == n - 1).float().argmax(1)
        unknown = (torch.rand(x.shape) < 0.04) & (x < n - 2)
        x[unknown] = torch.randint(1, n - 2, (int(unknown.sum()),))
        after = torch.minimum(end + torch.randint(0, 6, end.shape), torch.tensor(x.shape[1] - 1))
        hidden, row = model.encoder(x.to(ring.device)).last_hidden_state, torch.arange(len(x))
        logits = model.head(torch.stack([hidden[row, end], hidden[row, after]]))
        return F.binary_cross_entropy_with_logits(logits, y.expand_as(logits), pos_weight=torch.tensor(3.0, device=ring.device)), {}

    mean = train("text", ring, model, recipe, work.checkpoints / "text.pt", loss)
    if ring.rank == 0:
        precision, recall = scores(mean, *_examples(words, 1, 500))
        print(f"text: of the labels stated in held-out captions it finds {100 * recall:.1f} %, of those it finds {100 * precision:.1f} % are stated")
        mean.encoder.half().save_pretrained(work.bundle / "text_encoder")


def load(work: Work) -> CLIPTextModel:
    return CLIPTextModel.from_pretrained(work.bundle / "text_encoder").float().eval()


@torch.no_grad()
def scores(model: Trained, ids: torch.Tensor, stated: torch.Tensor) -> tuple[float, float]:
    """Precision and recall, read at the end of each text."""
    device = model.head.weight.device
    end = (ids == ids.max()).float().argmax(1)
    found = model.head(model.encoder(ids.to(device)).last_hidden_state[torch.arange(len(ids)), end]).cpu() > 0
    right = (found & (stated > 0.5)).sum()
    return float(right / found.sum()), float(right / stated.sum())
