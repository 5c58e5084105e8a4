"""Captions say what the scene shows, and scenes are always drawn alike."""

import unittest

import numpy as np

from demo_model import captions, data, tokenizer
from demo_model.canvas import Canvas
from demo_model.render import PAINTERS, STYLING, render
from demo_model.scene import BIOMES, GROUPS, LABELS, STYLES, Scene, sample

# Words that no caption may have unless the scene has the thing.
ONLY_WITH = {
    "moon": lambda s: s.moon,
    "moonlight": lambda s: s.moon,
    "star": lambda s: s.shooting_stars or s.stars,
    "stars": lambda s: s.shooting_stars or s.stars,
    "starry": lambda s: s.stars,
    "meteors": lambda s: s.shooting_stars,
    "sun": lambda s: s.sun or s.light == "sunset",
    "palm": lambda s: s.palms,
    "palms": lambda s: s.palms,
    "coconut": lambda s: s.palms,
    "flowers": lambda s: s.flowers,
    "wildflowers": lambda s: s.flowers,
    "fog": lambda s: s.weather == "fog",
    "mist": lambda s: s.weather == "fog",
    "misty": lambda s: s.weather == "fog",
    "clouds": lambda s: s.weather == "cloudy",
    "snow": lambda s: s.season == "winter" or s.biome == "snowy",
    "autumn": lambda s: s.season == "autumn",
    "night": lambda s: s.light == "night",
    "noon": lambda s: s.light == "day",
    "watercolor": lambda s: s.style == "watercolor",
    "silhouette": lambda s: s.style == "silhouette",
}


def drawn(n: int) -> list[tuple[Scene, str, np.ndarray]]:
    out = []
    for k in range(n):
        rng = np.random.default_rng(k)
        scene = sample(rng)
        out.append((scene, *captions.caption(rng, scene)))
    return out


class Captions(unittest.TestCase):
    def test_state_nothing_the_scene_does_not_show(self):
        for scene, text, stated in drawn(3000):
            with self.subTest(text):
                self.assertTrue((stated <= scene.labels()).all())

    def test_have_no_word_for_what_is_not_there(self):
        met = set()
        for scene, text, _ in drawn(5000):
            words = set(text.lower().replace(",", "").split())
            for word, holds in ONLY_WITH.items():
                if word in words:
                    met.add(word)
                    self.assertTrue(holds(scene), f"`{text}` of {scene}")
        self.assertEqual(met, set(ONLY_WITH), "every word above is used by some caption")

    def test_differ_for_one_scene(self):
        scene, rng = sample(np.random.default_rng(0)), np.random.default_rng(0)
        self.assertGreater(len({captions.caption(rng, scene)[0] for _ in range(20)}), 10)


class Scenes(unittest.TestCase):
    def test_agree_with_themselves(self):
        for scene, _, _ in drawn(2000):
            self.assertFalse(scene.sun and scene.dark)
            self.assertFalse(scene.moon and not scene.dark)
            self.assertTrue(scene.stars or not scene.shooting_stars)
            self.assertTrue(scene.biome == "beach" or not scene.palms)

    def test_show_every_label_now_and_then(self):
        share = np.mean([scene.labels() for scene, _, _ in drawn(2000)], 0)
        self.assertGreater(share.min(), 0.02, dict(zip(LABELS, share, strict=True)))

    def test_keep_what_is_wanted_and_refuse_what_they_have_not(self):
        self.assertEqual(sample(np.random.default_rng(0), biome="city", light="dawn").light, "dawn")
        with self.assertRaisesRegex(ValueError, "weathr"):
            sample(np.random.default_rng(0), weathr="fog")

    def test_have_a_painter_and_a_style_each(self):
        self.assertEqual((set(PAINTERS), set(STYLING)), (set(BIOMES), set(STYLES)))
        self.assertEqual(len(LABELS), sum(map(len, GROUPS.values())) + 7)


class Pictures(unittest.TestCase):
    def test_are_the_same_for_the_same_number(self):
        self.assertTrue((data.picture_of(5, 128) == data.picture_of(5, 128)).all())
        self.assertFalse((data.picture_of(5, 128) == data.picture_of(6, 128)).all())

    def test_of_every_biome_and_style_have_the_size_asked_for_and_are_no_flat_field(self):
        for biome in BIOMES:
            for style in STYLES:
                rng = np.random.default_rng(1)
                picture = render(rng, sample(rng, biome=biome, style=style), 96, 160)
                self.assertEqual((picture.shape, picture.dtype), ((96, 160, 3), np.uint8))
                self.assertGreater(picture.std(), 8, (biome, style))

    def test_show_the_moon_where_the_scene_has_one(self):
        rng = np.random.default_rng(2)
        canvas = Canvas(rng, sample(rng, light="night", weather="clear", moon=True, biome="desert"), 128, 128)
        canvas.sky(70)
        x, y, _ = canvas.disc
        self.assertGreater(canvas.image[int(y), int(x)].min(), 0.8)


class Tokens(unittest.TestCase):
    def test_pairs_that_are_frequent_are_merged_first(self):
        merges = tokenizer.learn({"aab": 5, "ab": 3, "c": 9}, 10)
        self.assertEqual(merges[0], ("a", "b</w>"))
        self.assertIn(("a", "ab</w>"), merges)

    def test_every_byte_has_a_symbol_of_its_own(self):
        self.assertEqual(len(set(tokenizer.byte_symbols().values())), 256)
