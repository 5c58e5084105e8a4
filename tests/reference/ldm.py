"""The original layout of Stable Diffusion 1 and 2 in one file ("LDM"): `ldm.py BUNDLE FILE.safetensors [--v-marker]` writes a bundle so.

What diffusers reads, it does not write; `loading.py` has its converter prove that this is the way back.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
TEXT = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def unet_name(name: str, layers: int, attends: set[int]) -> str:
    """The name of a UNet's tensor; `attends` are the up blocks with attentions."""
    fixed = {
        "time_embedding.linear_1.": "time_embed.0.", "time_embedding.linear_2.": "time_embed.2.", "conv_in.": "input_blocks.0.0.",
        "conv_norm_out.": "out.0.", "conv_out.": "out.2.", "mid_block.attentions.0.": "middle_block.1.",
    }
    for new, old in fixed.items():
        if name.startswith(new):
            return old + name.removeprefix(new)
    parts = name.split(".")
    end = ".".join(parts[4:])
    if parts[0] == "mid_block":
        return f"middle_block.{2 * int(parts[2])}.{RESNET[parts[3]]}.{end}"
    level, kind, j = int(parts[1]), parts[2], int(parts[3])
    side, k = ("input_blocks", (layers + 1) * level + j + 1) if parts[0] == "down_blocks" else ("output_blocks", (layers + 1) * level + j)
    if kind == "downsamplers":
        return f"input_blocks.{(layers + 1) * (level + 1)}.0.op.{parts[-1]}"
    if kind == "upsamplers":
        return f"output_blocks.{(layers + 1) * level + layers}.{2 if level in attends else 1}.conv.{parts[-1]}"
    if kind == "attentions":
        return f"{side}.{k}.1.{end}"
    return f"{side}.{k}.0.{RESNET[parts[4]]}.{parts[5]}"


def vae_name(name: str, levels: int) -> str:
    parts = name.split(".")
    if parts[0] not in ("encoder", "decoder"):
        return name
    side, rest = parts[0], parts[1:]
    if rest[0] == "conv_norm_out":
        return f"{side}.norm_out.{rest[1]}"
    if rest[0] == "mid_block" and rest[1] == "resnets":
        return f"{side}.mid.block_{int(rest[2]) + 1}." + ".".join(rest[3:]).replace("conv_shortcut", "nin_shortcut")
    if rest[0] == "mid_block":
        inside = ".".join(rest[3:])
        for old, new in OLD_ATTENTION.items():
            inside = inside.replace(f"{old}.", f"{new}.")
        for new, old in {"group_norm.": "norm.", "to_q.": "q.", "to_k.": "k.", "to_v.": "v.", "to_out.0.": "proj_out."}.items():
            if inside.startswith(new):
                return f"{side}.mid.attn_1.{old}{inside.removeprefix(new)}"
    if rest[0] in ("down_blocks", "up_blocks"):
        level = int(rest[1]) if side == "encoder" else levels - 1 - int(rest[1])
        word = rest[0].removesuffix("_blocks")
        if rest[2] == "resnets":
            return f"{side}.{word}.{level}.block.{rest[3]}." + ".".join(rest[4:]).replace("conv_shortcut", "nin_shortcut")
        return f"{side}.{word}.{level}.{word}sample.conv.{rest[-1]}"
    return name


def names(states: dict[str, dict], second: bool) -> dict[str, str | list[str]]:
    """What each name of the original layout is in the folder's: one name, or the three that are one tensor there."""
    unet, layers = states["unet"], max(int(key.split(".")[3]) for key in states["unet"] if key.startswith("down_blocks.0.resnets.")) + 1
    attends = {int(key.split(".")[1]) for key in unet if key.startswith("up_blocks.") and ".attentions." in key}
    levels = max(int(key.split(".")[2]) for key in states["vae"] if key.startswith("decoder.up_blocks.")) + 1
    found: dict[str, str | list[str]] = {f"model.diffusion_model.{unet_name(key, layers, attends)}": key for key in unet}
    found |= {f"first_stage_model.{vae_name(key, levels)}": key for key in states["vae"]}
    for key in states["text_encoder"]:
        plain = key.removeprefix("text_model.")
        if plain == "embeddings.position_ids":
            continue
        if not second:
            found[f"cond_stage_model.transformer.text_model.{plain}"] = f"text_model.{plain}"
            continue
        old = {
            "embeddings.token_embedding.weight": "token_embedding.weight", "embeddings.position_embedding.weight": "positional_embedding",
            "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias",
        }.get(plain)
        if old is None:
            _, _, block, inside = plain.split(".", 3)
            for letter in "qkv":
                if inside.startswith(f"self_attn.{letter}_proj."):
                    end = inside.rsplit(".", 1)[1]
                    three = [f"text_model.encoder.layers.{block}.self_attn.{one}_proj.{end}" for one in "qkv"]
                    found[f"cond_stage_model.model.transformer.resblocks.{block}.attn.in_proj_{end}"] = three
                    break
            else:
                for new, name in TEXT.items():
                    inside = inside.replace(f"{new}.", f"{name}.") if inside.startswith(f"{new}.") else inside
                found[f"cond_stage_model.model.transformer.resblocks.{block}.{inside}"] = f"text_model.{plain}"
            continue
        found[f"cond_stage_model.model.{old}"] = f"text_model.{plain}"
    return found


def checkpoint(states: dict[str, dict], second: bool) -> dict[str, torch.Tensor]:
    """The tensors of a bundle in the original layout. Convolutions of 1x1 stand for the linear layers of the VAE."""
    text = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in states["text_encoder"].items()}
    tensors = {}
    for old, new in names(states, second).items():
        if isinstance(new, list):
            tensors[old] = torch.cat([text[key] for key in new])
        elif old.startswith("cond_stage_model."):
            tensors[old] = text[new]
        elif old.startswith("first_stage_model."):
            value = states["vae"][new]
            wide = ".attn_1." in old and ".norm." not in old and value.ndim == 2
            tensors[old] = value[:, :, None, None] if wide else value
        else:
            tensors[old] = states["unet"][new]
    return tensors


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes a bundle as one file in the original layout.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--v-marker", action="store_true")
    arguments = parser.parse_args()
    stems = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
    states = {part: load_file(arguments.bundle / part / f"{stem}.safetensors") for part, stem in stems.items()}
    config = json.loads((arguments.bundle / "text_encoder" / "config.json").read_text())
    tensors = checkpoint(states, config["hidden_act"] == "gelu")
    if arguments.v_marker:
        tensors["v_pred"] = torch.tensor([])
    save_file({key: value.contiguous() for key, value in tensors.items()}, arguments.file)


if __name__ == "__main__":
    main()
