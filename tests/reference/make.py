"""Makes the bundles and the fixtures that the Rust tests compare themselves with; tests/fixtures/README.md describes the layout.

usage: make.py --seed N --out DIR
The same seed gives the same inputs everywhere, and on one kind of CPU the same bytes. Cases with a gradient are drawn again until
rounding does not show in them (see conditioning.py). Tables say what the cases are like; the script fails where one could not tell a
right implementation from a wrong one.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import diffusers
import torch
import transformers
from safetensors.torch import save_file
from transformers import CLIPTokenizer

import evaluation
from bundles import BUNDLES, NETWORKS, write_bundle, write_json
from conditioning import (
    DRAWS,
    MARGIN,
    ROUNDING,
    PanoramaChange,
    gradient_change,
    in_double,
    panorama_change,
    relative_difference,
    share_of_bytes_off,
    with_noise,
)
from perceptual import difference_to_lpips_package
from syncdiffusion_reference import Parameters, SyncDiffusion, find_windows
from texts import AWKWARD_TEXTS

DEMO_TOKENIZER = Path(__file__).resolve().parents[2] / "models" / "demo" / "tokenizer"
SCHEDULES = (1, 3, 7, 50, 200)
SYNC_GRADIENTS = ((50, 35, 7.5), (7, 3, 1.0))  # steps, index of the step, guidance
PROMPT = "a mountain lake at sunset, oil painting"
OTHER_PROMPT = "fog"
TRIES = 200
# What rounding may change at most. The tests allow 1e-4, relatively, for gradients and final latents, and 1e-4 of a picture's bytes.
GRADIENT_CHANGE = 1e-5
PANORAMA_CHANGE = PanoramaChange(bytes_off=1e-5, final_latent=2e-5)


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
        for _ in range(TRIES):
            picture, target = ((0.7 * cases.noise(1, 3, height, width)).clamp(-1, 1) for _ in range(2))
            loss, gradient = lpips_gradient(cases.model, picture, target)
            noisy = (with_noise(picture, MARGIN * ROUNDING, cases.generator) for _ in range(DRAWS))
            changes = [relative_difference(lpips_gradient(cases.model, other, target)[1], gradient) / MARGIN for other in noisy]
            if max(changes) < GRADIENT_CHANGE:
                break
        else:
            sys.exit(f"no LPIPS case of {TRIES} is well conditioned")
        cases.add("lpips", picture=picture, target=target, loss=loss, gradient=gradient)


def lpips_gradient(model: SyncDiffusion, picture: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """LPIPS of two pictures in -1..1 and its gradient to the first."""
    picture = picture.detach().requires_grad_()
    loss = model.lpips(picture, target)
    (gradient,) = torch.autograd.grad(loss, picture)
    return loss.detach(), gradient


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
    double = in_double(model)
    embeddings = torch.cat([model.embed("blurry"), model.embed(PROMPT)])
    for steps, index, guidance_scale in SYNC_GRADIENTS:
        model.scheduler.set_timesteps(steps)
        timestep = model.scheduler.timesteps[index]
        for tries in range(1, TRIES + 1):
            latent, target_latent = cases.noise(1, 4, size, size), cases.noise(1, 4, size, size)
            with torch.no_grad():
                target = model.predict_picture(target_latent, timestep, embeddings, guidance_scale)
            loss, gradient = model.sync_gradient(latent, target, timestep, embeddings, guidance_scale)
            inputs = latent, target, timestep, embeddings, guidance_scale
            _, exact = double.sync_gradient(*(x.double() if x.is_floating_point() else x for x in inputs[:4]), guidance_scale)
            change = max(
                relative_difference(gradient, exact),
                gradient_change(model, gradient, lambda: model.sync_gradient(*inputs)[1], GRADIENT_CHANGE),
            )
            if change < GRADIENT_CHANGE:
                break
        else:
            sys.exit(f"no sync gradient of {TRIES} at timestep {timestep} with guidance {guidance_scale} is well conditioned")
        print(f"  sync gradient at {timestep:3}, guidance {guidance_scale}: length {gradient.norm():.3f}, try {tries}, change {change:.1e}")
        cases.add(
            "sync_gradient",
            {
                "num_inference_steps": steps, "timestep": timestep.item(), "guidance_scale": guidance_scale,
                "conditioning": {"gradient": change},
            },
            latent=latent, target=target, embeddings=embeddings, loss=loss, gradient=gradient,
        )


def panorama_parameters(model: SyncDiffusion, seed: int) -> dict[str, Parameters]:
    """The whole panoramas by name: two windows wide, a few steps, each with something of its own."""
    size = model.window_size

    def parameters(height: int = size, width: int = 2 * size, **changes) -> Parameters:
        defaults = {
            "prompt": PROMPT, "num_inference_steps": 3, "stride": 8, "guidance_scale": 4.0, "sync_threshold": 2, "sync_weight": 6.0,
            "seed": seed,
        }
        return Parameters(height=height * model.factor, width=width * model.factor, **defaults | changes)

    return {
        "plain": parameters(guidance_scale=7.5, sync_weight=0.0, stride=4, num_inference_steps=7),
        "sync": parameters(guidance_scale=7.5, stride=4),
        "sync_every_step": parameters(sync_threshold=50, negative_prompt="blurry"),
        "sync_freq_2": parameters(num_inference_steps=5, sync_freq=2, sync_threshold=4, sync_weight=10.0),
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
    print(
        f"  {'panorama':36}{'std':>6}{'clipped':>9}{'loss':>7}{'sync step':>11}{'changed by sync':>17}{'try':>5}"
        f"{'latent off':>12}{'bytes off':>11}"
    )
    for name, wanted in panorama_parameters(model, seed).items():
        panorama = draw_panorama(model, wanted)
        if panorama is None:
            complaints.append(f"{name}: no seed of {TRIES} is well conditioned")
            continue
        parameters, picture = panorama.parameters, panorama.picture
        start_latent = model.start_latent(parameters)
        windows = find_windows(*start_latent.shape[2:], model.window_size, parameters.stride, parameters.loop_closure)
        cases.add(
            "panoramas",
            {
                "name": name, "parameters": dataclasses.asdict(parameters), "conditioning": dataclasses.asdict(panorama.change),
                "windows": [[window.row, window.column] for window in windows],
            },
            start_latent=start_latent, final_latent=panorama.final_latent, picture=picture,
        )

        deviation = picture.float().std().item()
        clipped = ((picture == 0) | (picture == 255)).float().mean().item()
        loss, step = torch.tensor(panorama.syncs).mean(0).tolist() if panorama.syncs else (0.0, 0.0)
        unsynced = model.picture(model.sample(dataclasses.replace(parameters, sync_threshold=0)))
        changed = share_of_bytes_off(picture, unsynced)
        print(
            f"  {name:36}{deviation:6.1f}{clipped:9.2%}{loss:7.3f}{step:11.2%}{changed:17.2%}{panorama.tries:5}"
            f"{panorama.change.final_latent:12.1e}{panorama.change.bytes_off:11.1e}"
        )
        if deviation < 20 or clipped > 0.2:
            complaints.append(f"{name}: the picture is flat or saturated")
        if step > 0 and changed < 0.03:
            complaints.append(f"{name}: the sync gradient changes next to nothing")
    return complaints


@dataclasses.dataclass(frozen=True)
class DrawnPanorama:
    """A panorama in which rounding does not show, the loss and the relative size of its every sync step, and how it was measured."""

    parameters: Parameters
    final_latent: torch.Tensor
    picture: torch.Tensor
    syncs: list[tuple[float, float]]
    tries: int
    change: PanoramaChange


def draw_panorama(model: SyncDiffusion, wanted: Parameters) -> DrawnPanorama | None:
    """The first well conditioned panorama with the wanted parameters and the wanted seed, or else another."""
    window_norm = model.unet.config.in_channels**0.5 * model.window_size  # of noise; it is about the same at every timestep
    for tries in range(1, TRIES + 1):
        parameters = dataclasses.replace(wanted, seed=wanted.seed + 10_000 * (tries - 1))
        syncs: list[tuple[float, float]] = []

        def on_sync(step: int, window: int, loss: float, gradient_length: float) -> None:
            syncs.append((loss, parameters.sync_weight_of(step) * gradient_length / window_norm))

        final_latent = model.sample(parameters, on_sync=on_sync)
        picture = model.picture(final_latent)
        change = panorama_change(model, final_latent, picture, lambda: model.sample(parameters), PANORAMA_CHANGE)
        if change.within(PANORAMA_CHANGE):
            return DrawnPanorama(parameters, final_latent, picture, syncs, tries, change)
    return None


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
    parser.add_argument("--only", nargs="*", help="these bundles, and the tokens of these")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()

    difference = difference_to_lpips_package()
    print(f"LPIPS here and in the lpips package differ by {difference:.1e} of its value")
    complaints = [] if difference < 1e-5 else ["LPIPS is not that of the lpips package"]
    tokens = {"demo": tokens_of(DEMO_TOKENIZER)}
    for index, name in enumerate([*BUNDLES, *NETWORKS]):
        if arguments.only and name not in arguments.only:
            continue
        print(name)
        bundle, seed = arguments.out / "bundles" / name, 1000 * arguments.seed + index
        write_bundle(name, bundle, seed, DEMO_TOKENIZER)
        tokens[name] = tokens_of(bundle / "tokenizer")
        cases = Cases(SyncDiffusion(bundle), seed)
        add_networks(cases)
        add_lpips(cases)
        add_scheduler(cases)
        if name in BUNDLES:
            add_sync_gradients(cases)
            complaints += [f"{name}/{complaint}" for complaint in add_panoramas(cases, seed)]
        cases.save(arguments.out / name)
    write_json(arguments.out / "tokens.json", tokens, indent=None)
    if not arguments.only:
        write_json(arguments.out / "evaluation.json", evaluation.cases(arguments.out / "bundles"))
    if complaints:
        sys.exit("\n".join(complaints))


if __name__ == "__main__":
    main()
