"""A few steps of every stage make a bundle whose names and shapes are right and that the Rust worker draws with."""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors import safe_open

from demo_model import bundle, data, loop, perceptual, text, tokenizer, unet, vae
from demo_model.loop import Recipe, Ring
from demo_model.muon import orthogonal
from demo_model.work import Work

SERVER = Path(__file__).parents[2] / "target" / "release" / "syncdiffusion"
ALONE = Ring(0, 1, torch.device("cpu"))
COUNT, STEPS = 6, Recipe(steps=2, peak_rate=1e-3, final_rate=1e-4)


class Trained(unittest.TestCase):
    """All stages once, in a folder of their own."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.work = work = Work(Path(cls.folder.name))
        with mock.patch.object(data, "HELD_OUT", 2):
            data.run(work, COUNT)
            tokenizer.run(work, samples=300, limit=200)
            with mock.patch.object(text, "_examples", lambda words, seed, n, made=text._examples: made(words, seed, 64)):
                text.run(ALONE, work, STEPS)
            vae.run(ALONE, work, COUNT, STEPS)
            for size in (256, 512):
                vae.encode(ALONE, work, COUNT, size, COUNT)
            for stage, size, onward in (("unet-small", 256, False), ("unet", 512, True)):
                unet.run(ALONE, work, stage, COUNT, size, 4, Recipe(2, 1e-3, 1e-4, muon=True), onward)
            vae.run_decoder(ALONE, work, "decoder", COUNT, 0.06, True, STEPS)
            perceptual.run(ALONE, work, COUNT, STEPS)
        bundle.finish(work)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_latents_are_unit_normal_times_the_scale_of_sd2(self):
        with mock.patch.object(data, "HELD_OUT", 2):
            _, small = data.pictures(self.work, COUNT)
        net = AutoencoderKL.from_pretrained(self.work.bundle / "vae").float()
        torch.manual_seed(0)
        fresh = vae.Trained().vae
        x = vae.as_input(small[:2])
        with torch.no_grad():
            before = fresh.decode(fresh.encode(x).latent_dist.mean).sample
            vae.fold(fresh, small[:2])
            latents = fresh.encode(x).latent_dist.mean
            after = fresh.decode(latents).sample
        self.assertLess(float((before - after).abs().max()), 1e-3, "folding changes no picture")
        scaled = latents * net.config.scaling_factor
        for channel in range(4):
            self.assertAlmostEqual(float(scaled[:, channel].mean()), 0, delta=0.02)
            self.assertAlmostEqual(float(scaled[:, channel].std()), 1, delta=0.02)
        self.assertEqual(net.config.scaling_factor, 0.18215)

    def test_weights_are_half_precision_under_the_names_of_diffusers(self):
        expected = {
            "unet/diffusion_pytorch_model.safetensors": ("conv_in.weight", [64, 4, 3, 3]),
            "vae/diffusion_pytorch_model.safetensors": ("decoder.conv_out.weight", [3, 16, 3, 3]),
            "text_encoder/model.safetensors": ("embeddings.position_embedding.weight", [77, 128]),
            "perceptual/model.safetensors": ("features.28.weight", [64, 64, 3, 3]),
        }
        for file, (name, shape) in expected.items():
            with safe_open(self.work.bundle / file, "pt") as weights:
                names = [key for key in weights.keys() if key.endswith(name)]
                self.assertEqual(len(names), 1, f"{file} has {sorted(weights.keys())[:4]}...")
                self.assertEqual(weights.get_slice(names[0]).get_shape(), shape)
                # Position ids are not weights.
                dtypes = {weights.get_slice(key).get_dtype() for key in weights.keys() if not key.endswith("position_ids")}
                self.assertEqual(dtypes, {"F16"}, file)

    def test_no_file_names_the_folder_it_was_made_in(self):
        for file in self.work.bundle.rglob("*.json"):
            self.assertNotIn(self.folder.name, file.read_text(), file.name)

    def test_a_finished_bundle_is_where_another_folder_goes_on_from(self):
        with tempfile.TemporaryDirectory() as folder:
            other = Work(Path(folder))
            bundle.start(other, self.work.bundle)
            torch.testing.assert_close(vae.load(other).state_dict(), vae.load(self.work).state_dict())
            (other.bundle / "vae" / "config.json").write_text("{}")
            bundle.start(other, self.work.bundle)
            self.assertEqual((other.bundle / "vae" / "config.json").read_text(), "{}", "what is there stays")

    def test_the_last_step_of_the_schedule_has_no_signal(self):
        config = json.loads((self.work.bundle / "scheduler" / "scheduler_config.json").read_text())
        self.assertEqual((config["rescale_betas_zero_snr"], config["timestep_spacing"], config["prediction_type"]), (True, "trailing", "v_prediction"))

    def test_the_worker_draws_with_it(self):
        out = self.work.results / "drawn.png"
        flags = ["--prompt=a lake", "--width=640", "--num-inference-steps=2", "--sync-threshold=1", f"--model={self.work.bundle}", f"--output={out}"]
        done = subprocess.run([SERVER, "generate", *flags], capture_output=True, text=True, env=os.environ | {"RUST_LOG": "error"})
        self.assertEqual(done.returncode, 0, done.stderr)
        with Image.open(out) as picture:
            self.assertEqual(picture.size, (640, 512))

    def test_a_training_that_was_interrupted_goes_on_as_if_it_had_not_been(self):
        def trained(steps: list[int]) -> torch.Tensor:
            with tempfile.TemporaryDirectory() as folder:
                for n in steps:
                    torch.manual_seed(1)
                    net = torch.nn.Linear(40, 40)
                    batch = lambda step, rng: ((net(torch.from_numpy(rng.standard_normal((8, 40), np.float32))) - 1).square().mean(), {})
                    # The rate of all four steps, so that two of them are the first half.
                    with mock.patch.object(Recipe, "rate", lambda self, step: 1e-3 * (step + 1)):
                        mean = loop.train("test", ALONE, net, Recipe(n, 1e-3, 1e-3, muon=True), Path(folder) / "net.pt", batch)
                return mean.weight

        torch.testing.assert_close(trained([2, 4]), trained([4]), rtol=0, atol=0)


class Orthogonal(unittest.TestCase):
    def test_singular_values_come_near_one(self):
        # Of a square one the smallest are too near 0 for five rounds.
        for shape in ((32, 100), (100, 32)):
            values = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
            self.assertGreater(float(values.min()), 0.3, shape)
            self.assertLess(float(values.max()), 1.4, shape)
