"""Compares two pictures of one size.

usage: compare.py A.png B.png
Prints {"share_within_1": share of bytes that differ by at most 1, "psnr": in dB, null when the pictures are equal, "max_diff"}.
"""

import json
import math
import sys

import numpy
from PIL import Image


def compare(a: numpy.ndarray, b: numpy.ndarray) -> dict:
    if a.shape != b.shape:
        raise ValueError(f"the pictures differ in size: {a.shape} and {b.shape}")
    difference = numpy.abs(a.astype(numpy.int64) - b.astype(numpy.int64))
    square = float((difference**2).mean())
    return {
        "share_within_1": float((difference <= 1).mean()),
        "psnr": 10 * math.log10(255**2 / square) if square else None,
        "max_diff": int(difference.max()),
    }


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: compare.py A.png B.png")
    a, b = (numpy.asarray(Image.open(path).convert("RGB")) for path in sys.argv[1:])
    try:
        print(json.dumps(compare(a, b)))
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
