"""The Python original on a GPU: `reference.py MODEL eager|whole|compile|kernels --json FILE [--device cpu]`.

eager: SyncDiffusion as its authors compute it, by diffusers under autocast, window after window: the default job, computed from
  its steps that are synchronised and those that are not, each measured; and its UNet in f16 alone, in wide batches.
whole: the same job from beginning to end.
compile: UNet and decoder by torch.compile, in the shapes of our own batches. It is the yardstick for ours.
kernels: the dearest kernels of the eager UNet.

Every measurement is a line of JSON. The text embeddings are random numbers: neither transformers nor a text is needed.
"""

import argparse
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

from perceptual import Lpips
from syncdiffusion_reference import Parameters, SyncDiffusion, load_network

# The default job.
STEPS, SYNCS, WINDOWS = 50, 5, 13


class Original(SyncDiffusion):
    """The original's algorithm, with random numbers for texts."""

    def __init__(self, bundle: Path, device: str):
        self.device = torch.device(device)
        self.unet = load_network(UNet2DConditionModel, bundle, "unet").to(self.device)
        self.vae = load_network(AutoencoderKL, bundle, "vae").to(self.device)
        self.scheduler = DDIMScheduler.from_pretrained(bundle, subfolder="scheduler")
        self.lpips = Lpips.from_bundle(bundle).to(self.device)
        self.window_size = self.unet.config.sample_size
        self.factor = 2 ** (len(self.vae.config.block_out_channels) - 1)

    def embed(self, text: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed(len(text))
        return torch.randn(1, 77, self.unet.config.cross_attention_dim, generator=generator).to(self.device)


class Bench:
    def __init__(self, options: argparse.Namespace):
        self.device, self.bundle, self.file = options.device, options.model, options.json
        self.cuda = options.device == "cuda"
        self.tiny = not self.cuda
        torch.backends.cudnn.benchmark = False

    def record(self, what: str, **fields) -> None:
        line = json.dumps({"record": "reference", "what": what, **fields})
        print(line, flush=True)
        with self.file.open("a") as file:
            file.write(line + "\n")

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], object]) -> float:
        self.synchronize()
        start = time.perf_counter()
        run()
        self.synchronize()
        return time.perf_counter() - start

    def median(self, run: Callable[[], object], limit: float = 3.0) -> tuple[float, float]:
        """Seconds of the first call, and the median of as many others as there is time for."""
        first, times, start = self.seconds(run), [], time.perf_counter()
        while len(times) < 3 or (len(times) < 20 and time.perf_counter() - start < limit):
            times.append(self.seconds(run))
        return first, sorted(times)[len(times) // 2]

    def autocast(self):
        return torch.autocast("cuda", torch.float16) if self.cuda else nullcontext()

    def parameters(self, steps: int, syncs: int) -> Parameters:
        if self.tiny:
            return Parameters("a text", width=192, height=128, stride=8, num_inference_steps=steps, sync_threshold=syncs)
        return Parameters("a text", num_inference_steps=steps, sync_threshold=syncs)

    def eager(self) -> None:
        model = Original(self.bundle, self.device)
        with self.autocast():
            draw = lambda steps, syncs: model.sample(self.parameters(steps, syncs))
            draw(1, 1)
            plain = self.seconds(lambda: draw(2, 0)) / 2
            synchronised = self.seconds(lambda: draw(2, 1)) - plain
            latents = draw(1, 0)
            picture = self.median(lambda: model.picture(latents), 1.0)[1]
        seconds = (STEPS - SYNCS) * plain + SYNCS * synchronised + picture
        self.record("eager job, from its steps", seconds=seconds, plain_step=plain, synchronised_step=synchronised, picture=picture)
        self.record("eager job, memory", peak_bytes=torch.cuda.max_memory_reserved() if self.cuda else 0)
        model.unet = model.vae = None
        self.unets(compiled=False)

    def whole(self) -> None:
        model = Original(self.bundle, self.device)
        steps, syncs = (2, 1) if self.tiny else (STEPS, SYNCS)
        with self.autocast():
            model.sample(self.parameters(1, 1))
            seconds = self.seconds(lambda: model.picture(model.sample(self.parameters(steps, syncs))))
        self.record("eager job, whole", seconds=seconds, steps=steps, syncs=syncs)

    def compile(self) -> None:
        self.unets(compiled=True)
        vae = self.half(AutoencoderKL, "vae")
        side = 8 if self.tiny else 64
        with torch.device(self.device):
            latents = torch.randn(2, 4, side, side, dtype=self.dtype())
        decode = torch.compile(lambda x: vae.decode(x).sample, dynamic=False, **self.mode("max-autotune-no-cudagraphs"))
        with torch.no_grad():
            first, median = self.median(lambda: decode(latents))
        self.record("decoder, compiled", windows=2, first_seconds=first, seconds=median)

    def unets(self, compiled: bool) -> None:
        unet = self.half(UNet2DConditionModel, "unet")
        wide = 4 if self.tiny else 2 * WINDOWS
        plan = [(wide, True, "max-autotune-no-cudagraphs"), (2, True, "reduce-overhead")]
        if not compiled:
            plan = [(2, False, ""), (wide, False, ""), (2, True, ""), (wide, True, "")]
        side, width = unet.config.sample_size, unet.config.cross_attention_dim
        for batch, channels_last, mode in plan:
            unet = unet.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
            network = torch.compile(unet, dynamic=False, **self.mode(mode)) if compiled else unet
            with torch.device(self.device), torch.no_grad():
                latents, texts = torch.randn(batch, 4, side, side, dtype=self.dtype()), torch.randn(batch, 77, width, dtype=self.dtype())
                if channels_last:
                    latents = latents.contiguous(memory_format=torch.channels_last)
                timestep = torch.tensor(500)
                run = lambda: network(latents, timestep, encoder_hidden_states=texts).sample
                first, median = self.median(run)
                expected = unet(latents, timestep, encoder_hidden_states=texts).sample.float()
                error = ((run().float() - expected).norm() / expected.norm()).item()
            self.record(
                f"UNet, {'compiled' if compiled else 'eager'}", mode=mode, batch=batch, channels_last=channels_last, first_seconds=first,
                seconds=median, error=error,
            )

    def kernels(self) -> None:
        unet = self.half(UNet2DConditionModel, "unet")
        batch, side = (4 if self.tiny else 2 * WINDOWS), unet.config.sample_size
        activities = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * self.cuda
        with torch.device(self.device), torch.no_grad():
            latents, texts = (torch.randn(batch, *shape, dtype=self.dtype()) for shape in [(4, side, side), (77, unet.config.cross_attention_dim)])
            run = lambda: unet(latents, torch.tensor(500), encoder_hidden_states=texts)
            run()
            with torch.profiler.profile(activities=activities) as profile:
                run()
                self.synchronize()
        key = "self_device_time_total" if self.cuda else "self_cpu_time_total"
        rows = sorted(profile.key_averages(), key=lambda row: getattr(row, key), reverse=True)[:15]
        kernels = [{"name": row.key, "count": row.count, "seconds": getattr(row, key) / 1e6} for row in rows]
        self.record("dearest kernels of the eager UNet", batch=batch, kernels=kernels)

    def half(self, network_class, part: str):
        return load_network(network_class, self.bundle, part).to(self.device, self.dtype())

    def dtype(self) -> torch.dtype:
        return torch.float16 if self.cuda else torch.float32

    def mode(self, mode: str) -> dict:
        # On a CPU only the way there is tried, not the compiler.
        return {"mode": mode} if self.cuda else {"backend": "aot_eager"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("what", choices=["eager", "whole", "compile", "kernels"])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    options = parser.parse_args()
    getattr(Bench(options), options.what)()


if __name__ == "__main__":
    main()
