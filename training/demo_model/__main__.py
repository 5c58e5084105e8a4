"""Trains the demo model: `python -m demo_model STAGE...`, or `all`. An interrupted stage resumes where it stopped."""

import argparse
import logging
import os
import warnings
from pathlib import Path

from . import bundle, data, evaluate, perceptual, text, tokenizer, unet, vae
from .loop import Recipe, together
from .sample import PROMPTS, Sampler, sheet
from .work import Work

PROJECT = Path(__file__).parents[2]
SCENES = 12_000
LARGE = 6_000
"""The number of scenes that are used at full size."""


def pictures(work: Work):
    """Renders the scenes."""
    data.run(work, SCENES)


def words(work: Work):
    """Learns the tokenizer."""
    tokenizer.run(work)


def text_encoder(work: Work):
    """Trains the text encoder."""
    together(text.run, work, Recipe(steps=1_200, peak_rate=1.5e-3, final_rate=1e-5))


def autoencoder(work: Work):
    """Trains the VAE."""
    together(vae.run, work, SCENES, Recipe(steps=1_500, peak_rate=2e-3, final_rate=6e-5, ema=0.995, weight_decay=1e-4))


def latents(work: Work):
    """Encodes the pictures, and tokenizes their captions."""
    unet.caption_tokens(work)
    for size, chosen in ((256, SCENES - data.HELD_OUT), (512, LARGE)):
        together(vae.encode, work, SCENES, size, chosen)


def unet_small(work: Work):
    """Trains the UNet at 32x32."""
    recipe = Recipe(steps=2_600, peak_rate=2e-3, final_rate=2e-4, muon=True)
    together(unet.run, work, "unet-small", SCENES - data.HELD_OUT, 256, 16, recipe, False)


def unet_large(work: Work):
    """Goes on with it at 64x64."""
    recipe = Recipe(steps=1_300, peak_rate=1e-3, final_rate=2e-5, ema=0.998, muon=True)
    together(unet.run, work, "unet", 2_500, 512, 8, recipe, True)


def unet_longer(work: Work):
    """Goes on with the bundle's UNet, on more pictures."""
    recipe = Recipe(steps=2_500, peak_rate=1e-3, final_rate=1e-5, ema=0.998, muon=True)
    together(unet.run, work, "unet-longer", LARGE, 512, 8, recipe, True)


def unet_again(work: Work):
    """And once more."""
    recipe = Recipe(steps=1_100, peak_rate=1e-3, final_rate=1e-5, ema=0.998, muon=True, seed=1)
    together(unet.run, work, "unet-again", LARGE, 512, 8, recipe, True)


def decoder(work: Work):
    """Goes on with the VAE's decoder, on the same latents."""
    recipe = Recipe(steps=500, peak_rate=1e-3, final_rate=2e-5, ema=0.995, weight_decay=1e-4)
    together(vae.run_decoder, work, "decoder", SCENES, 0.12, False, recipe)


def decoder_again(work: Work):
    """Goes on with the bundle's decoder, on whole scenes too."""
    recipe = Recipe(steps=800, peak_rate=1e-3, final_rate=1e-5, ema=0.99, weight_decay=1e-4, muon=True, seed=1)
    together(vae.run_decoder, work, "decoder-again", SCENES, 0.06, True, recipe)


def decoder_last(work: Work):
    """And once more, slower."""
    recipe = Recipe(steps=500, peak_rate=5e-4, final_rate=5e-6, ema=0.99, weight_decay=1e-4, muon=True, seed=2)
    together(vae.run_decoder, work, "decoder-last", SCENES, 0.06, True, recipe)


def distance(work: Work):
    """Trains the perceptual net."""
    together(perceptual.run, work, SCENES, Recipe(steps=1_400, peak_rate=2e-3, final_rate=1e-5, ema=0.99, weight_decay=1e-3))


def finish(work: Work):
    """Completes the bundle."""
    bundle.finish(work)


def look(work: Work):
    """Draws twelve prompts with the bundle as it is."""
    drawn = Sampler(work.bundle).draw(list(PROMPTS), seed=0)
    sheet(list(drawn), list(PROMPTS), 4).save(work.results / "look.png")
    print(f"look: {work.results / 'look.png'}")


def measure(work: Work):
    """Measures the bundle beside the one in models/demo, by the built server too: tables and sheets of pictures."""
    evaluate.run(work, SCENES, PROJECT / "models" / "demo", PROJECT / "target" / "release" / "syncdiffusion")


STAGES = {
    "pictures": pictures,
    "tokenizer": words,
    "text": text_encoder,
    "vae": autoencoder,
    "latents": latents,
    "unet-small": unet_small,
    "unet": unet_large,
    "unet-longer": unet_longer,
    "unet-again": unet_again,
    "decoder": decoder,
    "decoder-again": decoder_again,
    "decoder-last": decoder_last,
    "perceptual": distance,
    "bundle": finish,
    "look": look,
    "evaluate": measure,
}


def main():
    stages = "\n".join(f"  {name:12} {stage.__doc__}" for name, stage in STAGES.items())
    parser = argparse.ArgumentParser(
        "demo_model", description=f"{__doc__}\n\nstages, in their order:\n{stages}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", nargs="+", choices=[*STAGES, "all"], metavar="STAGE")
    parser.add_argument("--from", dest="start", type=Path, help="a finished bundle to go on from, where the work folder has none yet")
    parser.add_argument("--work", type=Path, default=PROJECT / "training" / "made", help="the folder for everything that is made (%(default)s)")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.filterwarnings("ignore", module="torch")
    logging.disable(logging.WARNING)
    work = Work(arguments.work)
    if arguments.start is not None:
        bundle.start(work, arguments.start)
    # `all` makes the bundle; measuring it needs the server, built.
    for name in [name for name in STAGES if name != "evaluate"] if "all" in arguments.stage else arguments.stage:
        STAGES[name](work)


if __name__ == "__main__":
    main()
