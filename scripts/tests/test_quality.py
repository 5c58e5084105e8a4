"""The figures and cells of `quality.py`."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import quality


def pictures(*values):
    return [{"intra_lpips": value} for value in values]


class Difference(unittest.TestCase):
    def test_it_is_taken_from_picture_to_picture(self):
        before, after = pictures(1.0, 2.0, 3.0, None), pictures(1.5, 2.0, 4.0, 9.0)
        value, error = quality.difference(after, before, "intra_lpips")
        # Of 0.5, 0 and 1: their deviation is 0.5. The fourth has no other.
        self.assertAlmostEqual(value, 0.5)
        self.assertAlmostEqual(error, 0.5 / 3**0.5)
        self.assertEqual(quality.difference_cell(after, before, "intra_lpips", 2), "0.50 ±0.29")
        self.assertFalse(quality.is_worse(after, before, "intra_lpips"), "less than two standard errors")
        self.assertTrue(quality.is_worse(pictures(1.4, 2.5, 3.6), pictures(1.0, 2.0, 3.0), "intra_lpips"))

    def test_zero_has_no_sign(self):
        self.assertEqual(quality.difference_cell(pictures(0.9999), pictures(1.0), "intra_lpips", 3), "0.000 ±0.000")

    def test_as_many_pictures_are_compared(self):
        with self.assertRaises(ValueError):
            quality.difference(pictures(1.0), pictures(1.0, 2.0), "intra_lpips")


class Mean(unittest.TestCase):
    def test_digits_are_those_of_the_figure(self):
        self.assertEqual(quality.mean(pictures(1.0, 2.0, None), "intra_lpips"), (1.5, "1.500 ±0.707"))
        self.assertEqual(quality.mean(pictures(1.0, 2.0), "intra_lpips", digits=1)[1], "1.5 ±0.7")
        self.assertEqual(quality.mean(pictures(1.0), "intra_lpips", digits=2)[1], "1.00")


if __name__ == "__main__":
    unittest.main()
