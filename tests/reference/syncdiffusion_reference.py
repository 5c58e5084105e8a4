"""SyncDiffusion as its authors compute it (Lee et al., NeurIPS 2023, arXiv 2306.05178): window after window, in fp32, waste included.

The anchor window goes through the UNet three times in a sync step and its own gradient is computed and thrown away, as in the
original. Nothing else is computed twice, so times of this code stand for times of the original.

Latents are [1, 4, height, width]; a picture is `factor` times as high and wide, where `factor` is the VAE's (8 in Stable Diffusion).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

from perceptual import Lpips


@dataclass(frozen=True)
class Window:
    """A square of the latent panorama: its first row and column. Columns wrap past the right edge."""

    row: int
    column: int


@dataclass(frozen=True)
class Parameters:
    """The inputs of one panorama, named and preset as in the hosted model."""

    prompt: str
    negative_prompt: str = ""
    width: int = 2048
    height: int = 512
    guidance_scale: float = 7.5
    sync_weight: float = 20.0
    sync_decay_rate: float = 0.99
    sync_freq: int = 1
    sync_threshold: int = 5
    num_inference_steps: int = 50
    stride: int = 16
    seed: int = 2
    loop_closure: bool = False

    def syncs_in(self, step: int) -> bool:
        return (step + 1) % self.sync_freq == 0 and step < self.sync_threshold

    def sync_weight_of(self, step: int) -> float:
        return self.sync_weight * self.sync_decay_rate**step


def find_windows(height: int, width: int, size: int, stride: int, loop_closure: bool) -> list[Window]:
    """The windows of a latent panorama in the order in which they are processed: row by row, then those that wrap."""
    rows, columns = (height - size) // stride + 1, (width - size) // stride + 1
    windows = [Window(row * stride, column * stride) for row in range(rows) for column in range(columns)]
    if loop_closure:
        windows += [Window(0, width - size + (i + 1) * stride) for i in range(size // stride - 2)]
    return windows


class SyncDiffusion:
    """The networks of one bundle and the algorithm on them."""

    def __init__(self, bundle: Path | str, device: str = "cpu"):
        # Here, because scripts/gpu does without: it has other numbers for texts.
        from transformers import CLIPTextModel, CLIPTokenizer

        bundle = Path(bundle)
        self.device = torch.device(device)
        self.tokenizer = CLIPTokenizer.from_pretrained(bundle, subfolder="tokenizer")
        self.text_encoder = load_network(CLIPTextModel, bundle, "text_encoder").to(self.device)
        self.unet = load_network(UNet2DConditionModel, bundle, "unet").to(self.device)
        self.vae = load_network(AutoencoderKL, bundle, "vae").to(self.device)
        self.scheduler = DDIMScheduler.from_pretrained(bundle, subfolder="scheduler")
        self.lpips = Lpips.from_bundle(bundle).to(self.device)
        self.window_size = self.unet.config.sample_size
        self.factor = 2 ** (len(self.vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def embed(self, text: str) -> torch.Tensor:
        """The text encoder's last hidden state, [1, 77, width]; every text is padded or truncated to 77 tokens and none is masked."""
        return self.text_encoder(torch.tensor([self.tokenize(text)], device=self.device)).last_hidden_state

    def tokenize(self, text: str) -> list[int]:
        length = self.tokenizer.model_max_length
        return self.tokenizer(text, padding="max_length", max_length=length, truncation=True).input_ids

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """The picture of a latent, in 0..1. Where the clamp cuts, no gradient passes."""
        picture = self.vae.decode(1 / self.vae.config.scaling_factor * latent).sample
        return (picture / 2 + 0.5).clamp(0, 1)

    def denoise(self, latent: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor, guidance_scale: float):
        """One DDIM step of one window: an output with `prev_sample` and `pred_original_sample`.

        `embeddings` is [2, 77, width]: unconditional, then conditional.
        """
        prediction = self.unet(torch.cat([latent] * 2), timestep, encoder_hidden_states=embeddings).sample
        unconditional, conditional = prediction.chunk(2)
        guided = unconditional + guidance_scale * (conditional - unconditional)
        return self.scheduler.step(guided, timestep, latent)

    def predict_picture(self, latent: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor, guidance_scale: float):
        """The finished picture that a window promises at this timestep, in 0..1."""
        return self.decode(self.denoise(latent, timestep, embeddings, guidance_scale).pred_original_sample)

    def sync_gradient(self, latent: torch.Tensor, target: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor, guidance_scale: float):
        """LPIPS of a window's predicted picture to `target`, a picture in 0..1, and its gradient to the window's latent."""
        latent = latent.detach().requires_grad_()
        picture = self.predict_picture(latent, timestep, embeddings, guidance_scale)
        loss = self.lpips(picture * 2 - 1, target * 2 - 1)
        (gradient,) = torch.autograd.grad(loss, latent)
        return loss.detach(), gradient

    def start_latent(self, parameters: Parameters) -> torch.Tensor:
        """The noise a seed stands for: drawn on the CPU, all at once."""
        torch.manual_seed(parameters.seed)
        noise = torch.randn(1, self.unet.config.in_channels, parameters.height // self.factor, parameters.width // self.factor)
        return noise.to(self.device)

    def sample(
        self,
        parameters: Parameters,
        start: torch.Tensor | None = None,
        on_sync: Callable[[int, int, float, float], None] | None = None,
    ) -> torch.Tensor:
        """The latent panorama, from `start` or else from the seed's noise.

        `on_sync(step, window, loss, gradient length)` is told of every gradient that is used.
        """
        p = parameters
        latent = self.start_latent(p) if start is None else start
        height, width = latent.shape[2:]
        check_size(height, width, self.window_size, p)
        embeddings = torch.cat([self.embed(p.negative_prompt), self.embed(p.prompt)])
        windows = find_windows(height, width, self.window_size, p.stride, p.loop_closure)
        anchor = len(windows) // 2
        self.scheduler.set_timesteps(p.num_inference_steps)

        for step, timestep in enumerate(self.scheduler.timesteps):
            target = None
            if p.syncs_in(step):
                with torch.no_grad():
                    target = self.predict_picture(self.cut(latent, windows[anchor]), timestep, embeddings, p.guidance_scale)
            total, count = torch.zeros_like(latent), torch.zeros_like(latent)
            for index, window in enumerate(windows):
                view = self.cut(latent, window)
                if target is not None:
                    loss, gradient = self.sync_gradient(view, target, timestep, embeddings, p.guidance_scale)
                    if index != anchor:
                        view = view - p.sync_weight_of(step) * gradient
                        if on_sync is not None:
                            on_sync(step, index, loss.item(), gradient.norm().item())
                with torch.no_grad():
                    denoised = self.denoise(view, timestep, embeddings, p.guidance_scale).prev_sample
                rows, columns = self.place(window, width)
                total[:, :, rows, columns] += denoised
                count[:, :, rows, columns] += 1
            # What no window covers becomes 0, as in the original.
            latent = torch.where(count > 0, total / count, total)
        return latent

    @torch.no_grad()
    def picture(self, latent: torch.Tensor) -> torch.Tensor:
        """The bytes of a latent panorama, [height, width, 3]: decoded in one piece, truncated rather than rounded."""
        return (self.decode(latent)[0].float() * 255).to(torch.uint8).permute(1, 2, 0).cpu()

    def place(self, window: Window, width: int) -> tuple[slice, torch.Tensor]:
        columns = torch.arange(window.column, window.column + self.window_size, device=self.device) % width
        return slice(window.row, window.row + self.window_size), columns

    def cut(self, latent: torch.Tensor, window: Window) -> torch.Tensor:
        rows, columns = self.place(window, latent.shape[3])
        return latent[:, :, rows, columns]


def check_size(height: int, width: int, size: int, parameters: Parameters) -> None:
    """The original's conditions, in latents and for any window size."""
    stride = parameters.stride
    if not 0 < stride < size:
        raise ValueError(f"`stride` is {stride}; it must be above 0 and below the window size {size}")
    if min(height, width) < size or height % stride or width % stride:
        raise ValueError(f"{height} x {width} latents must each be at least {size} and divisible by `stride` {stride}")
    if parameters.loop_closure and height != size:
        raise ValueError(f"`loop_closure` needs a height of one window ({size} latents), not {height}")


def load_network(network_class, bundle: Path, subfolder: str):
    """A frozen fp32 network, from plain file names or, if the folder has only those, from names with `.fp16.`."""
    folder = bundle / subfolder
    variant = None if any(".fp16." not in file.name for file in folder.glob("*.safetensors")) else "fp16"
    network, loading = network_class.from_pretrained(
        folder, variant=variant, torch_dtype=torch.float32, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
    )
    if loading["missing_keys"]:
        raise ValueError(f"`{folder}` lacks weights: {sorted(loading['missing_keys'])}")
    return network.float().eval().requires_grad_(False)
