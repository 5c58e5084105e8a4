"""Fixtures of models as people have them: `loading.py` writes `../fixtures/loading/`.

    tokenizers/NAME/       a tokenizer as some version of transformers, or somebody else, wrote it; `tokenizers.json` has the ids that
                           transformers makes of texts with each
    schedulers.json        configurations of many samplers, and what `DDIMScheduler.from_pretrained` makes of each
    ldm-names.json         the names of Stable Diffusion 1 and 2 in the original layout, and what diffusers' converter makes of them
    lora/                  LoRAs for the bundle `epsilon` under the names of kohya, diffusers and peft; `expected.safetensors` has the
                           weights that peft merges, and `lora.json` says which file is which

The LoRAs need peft beside the other packages: `pip install --require-hashes --no-deps -r peft.txt` in the environment.
"""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.loaders import single_file_utils
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import ldm

FIXTURES = Path(__file__).parent / ".." / "fixtures"
OUT = FIXTURES / "loading"
EPSILON = FIXTURES / "bundles" / "epsilon"
TEXTS = [
    "a photo of a <cat-toy> at dawn", "a <cat-toy>", "<cat-toy>s and <CAT-TOY>", "wow! a lake", "<|endoftext|> b", "", "Café <new one> x", "<big> BIG <small>",
    "a<cat-toy>b", "plain words only",
]


def write(path: Path, content, indent: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=indent) + "\n")


def token(content: str, **changes) -> dict:
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True} | changes


def tokenizers() -> None:
    """Tokenizers that hold the same vocabulary in other files, or more than that."""
    cases = []
    base = EPSILON / "tokenizer"

    def case(name: str, change) -> None:
        folder = OUT / "tokenizers" / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base, folder)
        change(folder)
        tokenizer = CLIPTokenizer.from_pretrained(folder)
        ids = [tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids for text in TEXTS]
        cases.append({"name": name, "cases": [{"text": text, "ids": i} for text, i in zip(TEXTS, ids)]})

    def saved(folder: Path) -> None:
        tokenizer = CLIPTokenizer.from_pretrained(folder)
        shutil.rmtree(folder)
        tokenizer.save_pretrained(folder)

    def whole(folder: Path, change) -> None:
        content = json.loads((folder / "tokenizer.json").read_text())
        change(content)
        write(folder / "tokenizer.json", content)

    def as_texts(content: dict) -> None:
        content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]

    def with_added(content: dict) -> None:
        content["added_tokens"].append({"id": 576, **token("<cat-toy>", normalized=True, special=False)})

    def old_whole(folder: Path) -> None:
        """As tokenizers before 0.20 wrote it, without what transformers 5 puts into its configuration."""
        saved(folder)
        whole(folder, as_texts)
        write(folder / "tokenizer_config.json", {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "pad_token": "!"})

    def decoder(folder: Path) -> None:
        """As transformers from 4.34 on wrote it; the two other files say something else and do not count."""
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config |= {"pad_token": "<|endoftext|>", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
        config["added_tokens_decoder"] = {
            "574": token("<|startoftext|>", normalized=True), "575": token("<|endoftext|>"),
            "576": token("<cat-toy>", normalized=True, special=False), "577": token("<new one>", special=False, lstrip=True, rstrip=True),
        }
        write(folder / "tokenizer_config.json", config)

    def named(folder: Path) -> None:
        special = json.loads((folder / "special_tokens_map.json").read_text())
        write(folder / "special_tokens_map.json", special | {"additional_special_tokens": ["<cat-toy>", "<big>"]})

    def marked(folder: Path) -> None:
        for path in folder.glob("*.json"):
            path.write_bytes(path.read_bytes())
        (folder / "merges.txt").write_bytes((folder / "merges.txt").read_bytes().replace(b"\n", b"\r\n"))

    case("json-pairs", saved)
    case("json-texts", old_whole)
    case("json-added", lambda folder: (old_whole(folder), whole(folder, with_added)))
    case("added", lambda folder: write(folder / "added_tokens.json", {"<small>": 577, "<cat-toy>": 576}))
    case("decoder", decoder)
    case("named", named)
    case("without-configuration", lambda folder: [(folder / f).unlink() for f in ("tokenizer_config.json", "special_tokens_map.json")])
    case("unset-length", lambda folder: write(folder / "tokenizer_config.json", {"model_max_length": 10**30, "pad_token": "!"}))
    case("windows-lines", marked)
    write(OUT / "tokenizers.json", cases)


def schedulers() -> None:
    """Configurations of samplers, as pipelines save them and as people change them."""
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
    own = betas | {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "prediction_type": "epsilon"}
    configs = {
        "ddpm": own | {"_class_name": "DDPMScheduler", "variance_type": "fixed_small", "clip_sample_range": 1.0},
        "euler": own | {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True, "interpolation_type": "linear", "timestep_type": "discrete"},
        "euler-trailing": own | {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing", "sigma_min": None},
        "dpm": own | {
            "_class_name": "DPMSolverMultistepScheduler", "prediction_type": "v_prediction", "solver_order": 2, "algorithm_type": "dpmsolver++",
            "lower_order_final": True, "lambda_min_clipped": -5.1, "variance_type": None, "use_lu_lambdas": False, "final_sigmas_type": "zero",
        },
        "unipc": own | {
            "_class_name": "UniPCMultistepScheduler", "predict_x0": True, "disable_corrector": [], "solver_p": None,
            "timestep_spacing": "linspace",
        },
        "lms": betas | {"_class_name": "LMSDiscreteScheduler"},
        "heun-bare": {"_class_name": "HeunDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012},
        "deis": own | {
            "_class_name": "DEISMultistepScheduler", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
        },
        "lcm": own | {"_class_name": "LCMScheduler", "original_inference_steps": 50, "timestep_scaling": 10.0},
        "cosine": own | {"_class_name": "DDIMScheduler", "beta_schedule": "squaredcos_cap_v2"},
        "linear-clipped": {"_class_name": "DDIMScheduler", "beta_schedule": "linear", "clip_sample": True, "clip_sample_range": 2.0},
        "trained": {"_class_name": "PNDMScheduler", "num_train_timesteps": 20, "trained_betas": [0.001 * (n + 1) for n in range(20)], "skip_prk_steps": True},
        "unknown-class": own | {"_class_name": "MyOwnScheduler", "_use_default_values": ["clip_sample_range"], "_private": 3},
    }
    cases = []
    for name, config in configs.items():
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / "scheduler_config.json", config)
            scheduler = DDIMScheduler.from_pretrained(folder)
        scheduler.set_timesteps(5)
        step = scheduler.timesteps[1]
        sample, output = torch.linspace(-3, 3, 7), torch.linspace(2, -1, 7)
        result = scheduler.step(output, step, sample)
        cases.append({
            "name": name, "config": config, "timesteps": scheduler.timesteps.tolist(), "final_alpha": float(scheduler.final_alpha_cumprod),
            "alphas": scheduler.alphas_cumprod[:: max(1, len(scheduler.alphas_cumprod) // 10)].tolist(), "sample": sample.tolist(),
            "output": output.tolist(), "next": result.prev_sample.tolist(), "original": result.pred_original_sample.tolist(),
        })
    write(OUT / "schedulers.json", cases)


SD1 = {
    "unet": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8, "block_out_channels": (320, 640, 1280, 1280)},
    "text": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "quick_gelu"},
}
SD2 = {
    "unet": {"sample_size": 64, "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    "text": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16, "hidden_act": "gelu"},
}
VAE = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4, "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}


def ldm_names() -> None:
    """Names and shapes of the full sizes; the converter of diffusers must lead from ours back to its own."""
    cases = {}
    for name, shapes in {"sd1": SD1, "sd2": SD2}.items():
        with torch.device("meta"):
            unet = UNet2DConditionModel(**shapes["unet"])
            vae = AutoencoderKL(**VAE)
            text = CLIPTextModel(CLIPTextConfig(**shapes["text"]))
        parts = {"unet": unet, "vae": vae, "text_encoder": text}
        states = {part: {key: value.to("meta") for key, value in network.state_dict().items()} for part, network in parts.items()}
        checkpoint = ldm.checkpoint(states, name == "sd2")
        back = {
            "unet": single_file_utils.convert_ldm_unet_checkpoint(dict(checkpoint), unet.config),
            "vae": single_file_utils.convert_ldm_vae_checkpoint(dict(checkpoint), vae.config),
            "text_encoder": single_file_utils.convert_open_clip_checkpoint(text, dict(checkpoint)) if name == "sd2"
            else single_file_utils.convert_ldm_clip_checkpoint(dict(checkpoint)),
        }
        for part, state in states.items():
            found = {key.removeprefix("text_model."): list(value.shape) for key, value in back[part].items() if "position_ids" not in key}
            wanted = {key.removeprefix("text_model."): list(value.shape) for key, value in state.items() if "position_ids" not in key}
            # In the middle of the VAE the converter makes linear layers of the convolutions.
            assert found == wanted, (name, part, set(found.items() if 0 else found) ^ set(wanted))
        pairs = ldm.names(states, name == "sd2")
        encoder = {old: new for old, new in pairs.items() if old.startswith("first_stage_model.encoder.")}
        cases[name] = {
            "config": {"layers": 2, "levels": 4, "text_layers": shapes["text"]["num_hidden_layers"]},
            "names": {old: new for old, new in pairs.items() if old not in encoder}, "encoder": encoder,
            "shapes": {old: list(checkpoint[old].shape) for old in pairs},
        }
    write(OUT / "ldm-names.json", cases)


def lora() -> None:
    """Random LoRAs, merged by peft."""
    from diffusers.loaders.lora_base import LoraBaseMixin  # noqa: F401  (fails early where peft is missing)
    from peft import LoraConfig, get_peft_model
    from peft.utils import get_peft_model_state_dict

    folder, torch_generator = OUT / "lora", torch.Generator().manual_seed(7)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    unet = UNet2DConditionModel.from_pretrained(EPSILON, subfolder="unet", use_safetensors=True)
    text = CLIPTextModel.from_pretrained(EPSILON, subfolder="text_encoder")
    layers = {
        "unet": ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut",
                 "time_emb_proj", "conv_in", "conv_out", "downsamplers.0.conv", "upsamplers.0.conv", "linear_1"],
        "text_encoder": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
    }
    before = {"unet": dict(unet.state_dict()), "text_encoder": dict(text.state_dict())}
    before = {part: {key: value.clone() for key, value in state.items()} for part, state in before.items()}
    expected, diffusers_names, kohya_names, adapters = {}, {}, {}, {}
    for part, network in {"unet": unet, "text_encoder": text}.items():
        config = LoraConfig(r=2, lora_alpha=3, target_modules=layers[part], init_lora_weights=False)
        wrapped = get_peft_model(network, config)
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.data = 0.3 * torch.randn(parameter.shape, generator=torch_generator)
        adapters[part] = {key: value.clone().contiguous() for key, value in get_peft_model_state_dict(wrapped).items()}
        merged = wrapped.merge_and_unload().state_dict()
        for key, value in merged.items():
            if key in before[part] and not torch.equal(value, before[part][key]):
                expected[f"{part}.{key}"] = value.clone().contiguous()
        for key, value in adapters[part].items():
            plain = key.removeprefix("base_model.model.")
            diffusers_names[f"{part}.{plain}"] = value
            stem, end = plain.split(".lora_")
            if part == "text_encoder" and not stem.startswith("text_model."):
                stem = f"text_model.{stem}"
            flat = ("lora_unet_" if part == "unet" else "lora_te_") + stem.replace(".", "_")
            kohya_names[f"{flat}.lora_{'down' if end.startswith('A') else 'up'}.weight"] = value
            kohya_names[f"{flat}.alpha"] = torch.tensor(3.0)
    save_file(kohya_names, folder / "kohya.safetensors")
    metadata = {"lora_adapter_metadata": json.dumps({f"{part}.{key}": value for part in layers for key, value in {"lora_alpha": 3, "r": 2}.items()})}
    save_file(diffusers_names, folder / "diffusers.safetensors", metadata=metadata)
    (folder / "peft").mkdir()
    save_file(adapters["unet"], folder / "peft" / "adapter_model.safetensors")
    write(folder / "peft" / "adapter_config.json", {"lora_alpha": 3, "r": 2, "peft_type": "LORA"})
    save_file(expected, folder / "expected.safetensors")
    print(len(expected), "weights are changed by LoRA")


if __name__ == "__main__":
    tokenizers()
    schedulers()
    ldm_names()
    lora()
