"""SyncDiffusion with a multistep scheduler of diffusers: what all windows predict is averaged, and the panorama is stepped as one.

usage: canvas.py
Writes `../fixtures/canvas.json` and `../fixtures/canvas.safetensors`: panoramas of the random bundles and of the demo model.
[{"bundle", "name", "parameters": the inputs, "scheduler": "unipc" | "dpmpp_2m", "conditioning"}], with **final_latent** as `INDEX.final_latent`;
of the demo model every fourth row and column of it.
"""

import argparse
import dataclasses
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from safetensors.torch import save_file

from bundles import BUNDLES, write_json
from conditioning import PanoramaChange, panorama_change
from make import PROMPT, TRIES
from syncdiffusion_reference import Parameters, SyncDiffusion, check_size, find_windows

FIXTURES = Path(__file__).parent / ".." / "fixtures"
DEMO = Path(__file__).parents[2] / "models" / "demo"
SCHEDULERS = {"unipc": UniPCMultistepScheduler, "dpmpp_2m": DPMSolverMultistepScheduler}
CHANGE = PanoramaChange(bytes_off=1.0, final_latent=4e-5)


class CanvasDiffusion(SyncDiffusion):
    """A model whose scheduler is one of diffusers', made of the model's own by `from_config`."""

    def __init__(self, bundle: Path, scheduler: str):
        super().__init__(bundle)
        self.kind = SCHEDULERS[scheduler]
        self.folder = bundle

    def predict_original(self, latent: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor, guidance_scale: float):
        """The guided output, and the original that it predicts of the latent."""
        prediction = self.unet(torch.cat([latent] * 2), timestep, encoder_hidden_states=embeddings).sample
        unconditional, conditional = prediction.chunk(2)
        guided = unconditional + guidance_scale * (conditional - unconditional)
        return guided, self.solver.convert_model_output(guided, sample=latent)

    def predict_picture(self, latent: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor, guidance_scale: float):
        return self.decode(self.predict_original(latent, timestep, embeddings, guidance_scale)[1])

    def sample(self, parameters: Parameters, start: torch.Tensor | None = None, on_sync=None) -> torch.Tensor:
        p = parameters
        latent = self.start_latent(p) if start is None else start
        height, width = latent.shape[2:]
        check_size(height, width, self.window_size, p)
        embeddings = torch.cat([self.embed(p.negative_prompt), self.embed(p.prompt)])
        windows = find_windows(height, width, self.window_size, p.stride, p.loop_closure)
        anchor = len(windows) // 2
        self.solver = self.kind.from_pretrained(self.folder, subfolder="scheduler")
        self.solver.set_timesteps(p.num_inference_steps)

        for step, timestep in enumerate(self.solver.timesteps):
            if step == 0:
                self.solver._init_step_index(timestep)
            target = None
            if p.syncs_in(step):
                with torch.no_grad():
                    target = self.predict_picture(self.cut(latent, windows[anchor]), timestep, embeddings, p.guidance_scale)
            views, outputs, count = torch.zeros_like(latent), torch.zeros_like(latent), torch.zeros_like(latent)
            for index, window in enumerate(windows):
                view = self.cut(latent, window)
                if target is not None and index != anchor:
                    loss, gradient = self.sync_gradient(view, target, timestep, embeddings, p.guidance_scale)
                    view = view - p.sync_weight_of(step) * gradient
                    if on_sync is not None:
                        on_sync(step, index, loss.item(), gradient.norm().item())
                with torch.no_grad():
                    guided, _ = self.predict_original(view, timestep, embeddings, p.guidance_scale)
                rows, columns = self.place(window, width)
                views[:, :, rows, columns] += view
                outputs[:, :, rows, columns] += guided
                count[:, :, rows, columns] += 1
            moved, output = views / count.clamp_min(1), outputs / count.clamp_min(1)
            latent = self.step(output, timestep, moved, moved - latent)
        return latent

    def step(self, output: torch.Tensor, timestep: torch.Tensor, moved: torch.Tensor, move: torch.Tensor) -> torch.Tensor:
        """One step of the class. Its corrector computes the latents again from those of the step before, so what moved them in
        between would be lost: it is added to the latents before, scaled so that the step to here leaves it as it was."""
        solver, i = self.solver, self.solver.step_index
        if getattr(solver, "last_sample", None) is not None:
            (_, sigma), (_, before) = (solver._sigma_to_alpha_sigma_t(solver.sigmas[j]) for j in (i, i - 1))
            solver.last_sample = solver.last_sample + move * before / sigma
        return solver.step(output, timestep, moved).prev_sample


def panoramas(size: int, factor: int) -> dict[str, Parameters]:
    def parameters(height: int = size, width: int = 2 * size, **changes) -> Parameters:
        defaults = {
            "prompt": PROMPT, "num_inference_steps": 5, "stride": 8, "guidance_scale": 4.0, "sync_threshold": 3, "sync_weight": 6.0, "seed": 1,
        }
        return Parameters(height=height * factor, width=width * factor, **defaults | changes)

    return {
        "sync": parameters(),
        "plain": parameters(sync_weight=0.0, stride=4, num_inference_steps=7),
        "one_window": parameters(width=size, num_inference_steps=3),
        "one_step": parameters(num_inference_steps=1),
        "two_steps": parameters(num_inference_steps=2, negative_prompt="blurry"),
        "grid": parameters(height=size + 8, width=size + 8),
        "loop_closure": parameters(stride=4, loop_closure=True),
        "uncovered_edge": parameters(height=size + 2, width=2 * size - 2, stride=6),
    }


def main() -> None:
    argparse.ArgumentParser(description="Makes the fixtures of panoramas that are stepped as one.").parse_args()
    torch.set_num_threads(1)
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    cases, tensors = [], {}

    def add(bundle: str, name: str, scheduler: str, parameters: Parameters, change: float, latent: torch.Tensor) -> None:
        tensors[f"{len(cases)}.final_latent"] = latent.contiguous()
        inputs = dataclasses.asdict(parameters) | {"scheduler": scheduler}
        cases.append({"bundle": bundle, "name": name, "parameters": inputs, "conditioning": change})
        print(f"{bundle:8} {scheduler:9} {name:16} latent {latent.std():6.2f}, off by {change:.1e}, seed {parameters.seed}", flush=True)

    for bundle in BUNDLES:
        for scheduler in SCHEDULERS:
            model = CanvasDiffusion(FIXTURES / "bundles" / bundle, scheduler)
            # The two others have less of their own.
            every = bundle == "epsilon"
            for name, wanted in panoramas(model.window_size, model.factor).items():
                if not every and name not in ("sync", "plain", "two_steps"):
                    continue
                for tries in range(TRIES):
                    parameters = dataclasses.replace(wanted, seed=wanted.seed + 10_000 * tries)
                    latent = model.sample(parameters)
                    change = panorama_change(model, latent, model.picture(latent), lambda: model.sample(parameters), CHANGE)
                    if change.within(CHANGE):
                        break
                else:
                    raise SystemExit(f"{bundle}/{name}: no seed of {TRIES} is well conditioned")
                add(bundle, name, scheduler, parameters, change.final_latent, latent)
    for name, changes in {"sync": {}, "plain": {"sync_weight": 0.0}}.items():
        for scheduler in SCHEDULERS:
            model = CanvasDiffusion(DEMO, scheduler)
            parameters = Parameters(prompt="a lake at dawn", width=640, num_inference_steps=6, sync_threshold=2, seed=3, **changes)
            add("demo", name, scheduler, parameters, 0.0, model.sample(parameters)[:, :, ::4, ::4])
    write_json(FIXTURES / "canvas.json", cases)
    save_file(tensors, FIXTURES / "canvas.safetensors")


if __name__ == "__main__":
    main()
