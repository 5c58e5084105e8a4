"""Fixtures of the multistep schedulers: `schedulers.py` writes `../fixtures/schedulers.json`.

[{"name", "scheduler": "unipc" | "dpmpp_2m", "config", "start": [numbers], "runs": [{"timesteps", "latents": [[numbers] for each step]}]}]

`config` is the scheduler file of a model: of the bundles, of the demo model, and with keys that people change. What steps is diffusers'
class made of it by `from_config`. Instead of a network it steps with `sin(latents + timestep / 100)`, which the Rust test computes, too: so
an error in one step stays in the next.
"""

import json
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

FIXTURES = Path(__file__).parent / ".." / "fixtures"
DEMO = Path(__file__).parents[2] / "models" / "demo"
CLASSES = {"unipc": UniPCMultistepScheduler, "dpmpp_2m": DPMSolverMultistepScheduler}
STEPS = (1, 2, 3, 7, 20, 50)
FEW = (2, 4, 16)
NUMBERS = 3

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "steps_offset": 1}
CHANGED = {
    "leading": {"timestep_spacing": "leading"},
    "sigma-min": {"final_sigmas_type": "sigma_min", "timestep_spacing": "trailing"},
    "order-1": {"solver_order": 1, "timestep_spacing": "leading"},
    "dpm-heun": {
        "_class_name": "DPMSolverMultistepScheduler", "solver_type": "heun", "algorithm_type": "dpmsolver++", "final_sigmas_type": "sigma_min",
        "lower_order_final": True, "prediction_type": "v_prediction", "variance_type": None,
    },
    "dpm-euler-at-final": {"euler_at_final": True, "final_sigmas_type": "sigma_min", "solver_type": "midpoint"},
    # With a last noise level of zero diffusers' bh1 makes no numbers.
    "unipc-bh1": {
        "_class_name": "UniPCMultistepScheduler", "solver_type": "bh1", "disable_corrector": [], "predict_x0": True, "solver_p": None,
        "final_sigmas_type": "sigma_min",
    },
    "cosine": {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1, "steps_offset": 0, "prediction_type": "v_prediction"},
    "linear": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "clip_sample": True},
    "deis": {"_class_name": "DEISMultistepScheduler", "solver_type": "logrho"},
    "zero-snr-linspace": {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
}


def configs() -> dict[str, tuple[dict, tuple[int, ...]]]:
    folders = {name: FIXTURES / "bundles" / name for name in ("epsilon", "v", "sharded")} | {"demo": DEMO}
    files = {name: json.loads((folder / "scheduler" / "scheduler_config.json").read_text()) for name, folder in folders.items()}
    return {name: (file, STEPS) for name, file in files.items()} | {name: (BETAS | change, FEW) for name, change in CHANGED.items()}


def run(scheduler, steps: int, start: torch.Tensor) -> dict:
    scheduler.set_timesteps(steps)
    latents, after = start, []
    for timestep in scheduler.timesteps:
        latents = scheduler.step(torch.sin(latents + timestep / 100), timestep, latents).prev_sample
        after.append([round(number, 6) for number in latents.flatten().tolist()])
    return {"timesteps": scheduler.timesteps.tolist(), "latents": after}


def main() -> None:
    generator, cases = torch.Generator().manual_seed(1), []
    for name, (config, counts) in configs().items():
        for kind, scheduler_class in CLASSES.items():
            scheduler = scheduler_class.from_config(dict(config))
            start = torch.randn(1, NUMBERS, 1, 1, generator=generator)
            runs = [run(scheduler, steps, start) for steps in counts]
            assert all(abs(number) < 1e3 for each in runs for latents in each["latents"] for number in latents), (name, kind)
            cases.append({"name": name, "scheduler": kind, "config": config, "start": start.flatten().tolist(), "runs": runs})
    text = json.dumps(cases)
    (FIXTURES / "schedulers.json").write_text(text.replace("]}]}, {", "]}]},\n{") + "\n")
    print(f"{len(cases)} cases, {len(text)} bytes")


if __name__ == "__main__":
    main()
