"""Makes the bundles and the fixtures that the Rust tests compare themselves with; tests/fixtures/README.md describes the layout.

usage: make.py --seed N --out DIR
The same seed gives the same inputs everywhere, and on one kind of CPU the same bytes. A table says what the pictures are like; the
script fails where one could not tell a right implementation from a wrong one.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import diffusers
import torch
import transformers
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from bundles import BUNDLES, write_bundle, write_json
from perceptual import difference_to_lpips_package
from syncdiffusion_reference import Parameters, SyncDiffusion, find_windows
from texts import AWKWARD_TEXTS

DEMO_TOKENIZER = Path(__file__).resolve().parents[2] / "models" / "demo" / "tokenizer"
SCHEDULES = (1, 3, 7, 50, 200)
PROMPT = "a mountain lake at sunset, oil painting"
OTHER_PROMPT = "fog"


class Cases:
    """The cases of one bundle: a JSON document in which tensors are named, and the tensors."""

    def __init__(self, model: SyncDiffusion, seed: int):
        self.model = model
        self.generator = torch.Generator().manual_seed(seed)
        self.document = {"window_size": model.window_size, "factor": model.factor}
        self.tensors: dict[str, torch.Tensor] = {}

    def add(self, kind: str, parameters: dict | None = None, **tensors: torch.Tensor) -> None:
        """Appends a case to the list `kind`. Its tensors are stored as `kind.index.name`."""
        cases = self.document.setdefault(kind, [])
        names = {name: f"{kind}.{len(cases)}.{name}" for name in tensors}
        self.tensors |= {names[name]: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
        cases.append((parameters or {}) | names)

    def noise(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)

    def save(self, folder: Path) -> None:
        write_json(folder / "cases.json", self.document)
        save_file(self.tensors, folder / "cases.safetensors")


@torch.no_grad()
def add_networks(cases: Cases) -> None:
    """The text encoder, the UNet, the VAE decoder alone."""
    model, size = cases.model, cases.model.window_size
    for text in (PROMPT, ""):
        cases.add("text_encoder", {"text": text, "ids": model.tokenize(text)}, embedding=model.embed(text))
    embeddings = torch.cat([model.embed(""), model.embed(PROMPT)])
    for height, width in ((size, size), (size, size + 8)):
        sample, timesteps = cases.noise(2, 4, height, width), [981, 41]
        output = model.unet(sample, torch.tensor(timesteps), encoder_hidden_states=embeddings).sample
        cases.add("unet", {"timesteps": timesteps}, sample=sample, embeddings=embeddings, output=output)
    for height, width in ((size, size), (size, size + 8)):
        latent = cases.noise(1, 4, height, width)
        cases.add("vae_decoder", latent=latent, output=model.vae.decode(1 / model.vae.config.scaling_factor * latent).sample)


def add_lpips(cases: Cases) -> None:
    for height, width in ((32, 48), (35, 53)):
        picture = (0.7 * cases.noise(1, 3, height, width)).clamp(-1, 1).requires_grad_()
        target = (0.7 * cases.noise(1, 3, height, width)).clamp(-1, 1)
        loss = cases.model.lpips(picture, target)
        (gradient,) = torch.autograd.grad(loss, picture)
        cases.add("lpips", picture=picture, target=target, loss=loss, gradient=gradient)


def add_scheduler(cases: Cases) -> None:
    scheduler, size = cases.model.scheduler, cases.model.window_size
    cases.tensors["alphas_cumprod"] = scheduler.alphas_cumprod.clone()
    cases.document["alphas_cumprod"] = "alphas_cumprod"
    cases.document["final_alpha_cumprod"] = scheduler.final_alpha_cumprod.item()
    for steps in SCHEDULES:
        scheduler.set_timesteps(steps)
        timesteps = scheduler.timesteps.tolist()
        cases.add("timesteps", {"num_inference_steps": steps, "timesteps": timesteps})
        for timestep in sorted({timesteps[0], timesteps[len(timesteps) // 2], timesteps[-1]}, reverse=True):
            sample, output = cases.noise(1, 4, size, 4), cases.noise(1, 4, size, 4)
            step = scheduler.step(output, timestep, sample)
            cases.add(
                "ddim_step", {"num_inference_steps": steps, "timestep": timestep}, sample=sample, model_output=output,
                prev_sample=step.prev_sample, pred_original_sample=step.pred_original_sample,
            )


def add_sync_gradients(cases: Cases) -> None:
    model, size = cases.model, cases.model.window_size
    embeddings = torch.cat([model.embed("blurry"), model.embed(PROMPT)])
    for steps, index, guidance_scale in ((50, 0, 7.5), (7, 3, 1.0)):
        model.scheduler.set_timesteps(steps)
        timestep = model.scheduler.timesteps[index]
        latent, target_latent = cases.noise(1, 4, size, size), cases.noise(1, 4, size, size)
        with torch.no_grad():
            target = model.predict_picture(target_latent, timestep, embeddings, guidance_scale)
        loss, gradient = model.sync_gradient(latent, target, timestep, embeddings, guidance_scale)
        cases.add(
            "sync_gradient", {"num_inference_steps": steps, "timestep": timestep.item(), "guidance_scale": guidance_scale},
            latent=latent, target=target, embeddings=embeddings, loss=loss, gradient=gradient,
        )


def panorama_parameters(model: SyncDiffusion, seed: int) -> dict[str, Parameters]:
    """The whole panoramas by name: two windows wide, a few steps, each with something of its own."""
    size = model.window_size

    def parameters(height: int = size, width: int = 2 * size, **changes) -> Parameters:
        few_steps = {"prompt": PROMPT, "num_inference_steps": 3, "stride": 8, "sync_threshold": 2, "sync_weight": 8.0, "seed": seed}
        return Parameters(height=height * model.factor, width=width * model.factor, **few_steps | changes)

    return {
        "plain": parameters(sync_weight=0.0, stride=4, num_inference_steps=7),
        "sync": parameters(stride=4),
        "sync_every_step": parameters(sync_threshold=50, negative_prompt="blurry"),
        "sync_freq_2": parameters(num_inference_steps=5, sync_freq=2, sync_threshold=4),
        "sync_threshold_0": parameters(sync_threshold=0),
        "decay": parameters(sync_decay_rate=0.5, sync_threshold=3, sync_weight=12.0),
        "vertical": parameters(height=2 * size, width=size),
        "grid": parameters(height=size + 8, width=size + 8, prompt=OTHER_PROMPT),
        "loop_closure": parameters(stride=4, loop_closure=True),
        "loop_closure_without_extra_windows": parameters(stride=8, loop_closure=True),
        "guidance_1": parameters(guidance_scale=1.0),
        "guidance_0": parameters(guidance_scale=0.0, negative_prompt=OTHER_PROMPT),
        "one_window": parameters(width=size),
        "one_step": parameters(num_inference_steps=1, seed=seed + 1),
        "uncovered_edge": parameters(height=size + 2, width=2 * size - 2, stride=6),
    }


def add_panoramas(cases: Cases, seed: int) -> list[str]:
    """Adds the whole panoramas, prints what they are like, and returns what is wrong with them."""
    model, complaints = cases.model, []
    print(f"  {'panorama':36}{'std':>7}{'clipped':>9}{'loss':>8}{'gradient':>10}{'moved by sync':>15}{'sensitivity':>13}")
    for name, parameters in panorama_parameters(model, seed).items():
        syncs: list[tuple[float, float]] = []
        final_latent = model.sample(parameters, on_sync=lambda step, window, loss, length: syncs.append((loss, length)))
        picture = model.picture(final_latent)
        start_latent = model.start_latent(parameters)
        windows = find_windows(*start_latent.shape[2:], model.window_size, parameters.stride, parameters.loop_closure)
        sensitivity = measure_sensitivity(model, parameters, start_latent, final_latent)
        cases.add(
            "panoramas",
            {
                "name": name, "parameters": dataclasses.asdict(parameters), "sensitivity": sensitivity,
                "windows": [[window.row, window.column] for window in windows],
            },
            start_latent=start_latent, final_latent=final_latent, picture=picture,
        )

        values = picture.float()
        clipped = ((picture == 0) | (picture == 255)).float().mean().item()
        loss, length = torch.tensor(syncs).mean(0).tolist() if syncs else (0.0, 0.0)
        unsynced = model.picture(model.sample(dataclasses.replace(parameters, sync_threshold=0))).float()
        moved = (values - unsynced).abs().mean().item()
        print(f"  {name:36}{values.std().item():7.1f}{clipped:9.2%}{loss:8.3f}{length:10.4f}{moved:15.2f}{sensitivity:13.1e}")
        if values.std() < 20 or clipped > 0.2:
            complaints.append(f"{name}: the picture is flat or saturated")
        if syncs and parameters.sync_weight and (length < 1e-3 or moved < 0.1):
            complaints.append(f"{name}: the sync gradient changes next to nothing")
    return complaints


def measure_sensitivity(model: SyncDiffusion, parameters: Parameters, start: torch.Tensor, final: torch.Tensor) -> float:
    """How far the final latent moves, at most, when the start latent is changed by 1e-6 of its values: what rounding may grow to.

    The sync gradient jumps where a ReLU, a max pooling or the clamp changes sides, so it is far more than 1e-6 in places.
    """
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(parameters.seed))
    return (model.sample(parameters, start=start * (1 + 1e-6 * noise)) - final).abs().max().item()


def tokens_of(folder: Path) -> list[dict]:
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    length = tokenizer.model_max_length
    return [
        {"text": text, "ids": tokenizer(text, padding="max_length", max_length=length, truncation=True).input_ids}
        for text in AWKWARD_TEXTS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the bundles and fixtures of the Rust tests.")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()

    difference = difference_to_lpips_package()
    print(f"LPIPS here and in the lpips package differ by {difference:.1e} of its value")
    complaints = [] if difference < 1e-5 else ["LPIPS is not that of the lpips package"]
    tokens = {"demo": tokens_of(DEMO_TOKENIZER)}
    for index, name in enumerate(BUNDLES):
        print(name)
        bundle, seed = arguments.out / "bundles" / name, 1000 * arguments.seed + index
        write_bundle(name, bundle, seed, DEMO_TOKENIZER)
        tokens[name] = tokens_of(bundle / "tokenizer")
        cases = Cases(SyncDiffusion(bundle), seed)
        add_networks(cases)
        add_lpips(cases)
        add_scheduler(cases)
        add_sync_gradients(cases)
        complaints += [f"{name}/{complaint}" for complaint in add_panoramas(cases, seed)]
        cases.save(arguments.out / name)
    write_json(arguments.out / "tokens.json", tokens, indent=None)
    if complaints:
        sys.exit("\n".join(complaints))


if __name__ == "__main__":
    main()
