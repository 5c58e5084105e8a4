"""Pictures for scripts, without packages: PNGs of 8-bit RGB, and what is measured on their pixels."""

import math
import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = 3
# Of histograms, a channel.
BINS = 8


class Picture:
    """Rows of bytes, three a pixel."""

    def __init__(self, rows):
        self.rows, self.height, self.width = rows, len(rows), len(rows[0]) // CHANNELS

    @classmethod
    def read(cls, path):
        data, at, parts = path.read_bytes(), len(SIGNATURE), []
        if not data.startswith(SIGNATURE):
            raise ValueError(f"`{path}` is not a PNG")
        while at < len(data):
            length, kind = struct.unpack(">I4s", data[at : at + 8])
            body = data[at + 8 : at + 8 + length]
            if kind == b"IHDR":
                width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
                if (depth, colour, interlaced) != (8, 2, 0):
                    raise ValueError(f"`{path}` is not 8-bit RGB")
            elif kind == b"IDAT":
                parts.append(body)
            at += 12 + length
        raw, step = zlib.decompress(b"".join(parts)), CHANNELS * width
        rows, above = [], bytearray(step)
        for row in range(height):
            begin = row * (step + 1)
            above = unfiltered(raw[begin], bytearray(raw[begin + 1 : begin + 1 + step]), above)
            rows.append(bytes(above))
        return cls(rows)

    def write(self, path):
        def chunk(kind, body):
            return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

        head = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        raw = b"".join(b"\0" + row for row in self.rows)
        path.write_bytes(SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw, 1)) + chunk(b"IEND", b""))

    def columns(self, begin, end):
        return Picture([row[CHANNELS * begin : CHANNELS * end] for row in self.rows])

    def beside(self, other):
        return Picture([a + b for a, b in zip(self.rows, other.rows, strict=True)])

    def brightness(self):
        """The mean of all bytes, from 0 to 1."""
        return sum(map(sum, self.rows)) / (255 * self.height * self.width * CHANNELS)

    def histogram(self):
        """The share of the bytes of each channel in each of `BINS` bins."""
        counts = [0] * (CHANNELS * BINS)
        for row in self.rows:
            for i, byte in enumerate(row):
                counts[i % CHANNELS * BINS + byte * BINS // 256] += 1
        return [count / (self.height * self.width) for count in counts]

    def histogram_distance(self, other):
        """How far two histograms are apart, from 0 to 1."""
        pairs = zip(self.histogram(), other.histogram(), strict=True)
        return sum(abs(a - b) for a, b in pairs) / (2 * CHANNELS)

    def psnr(self, other):
        squares = sum((a - b) ** 2 for x, y in zip(self.rows, other.rows, strict=True) for a, b in zip(x, y, strict=True))
        count = self.height * self.width * CHANNELS
        return 10 * math.log10(255**2 * count / squares) if squares else math.inf

    def kink(self, column):
        """How much the picture jumps between a column and the next, beyond its slope on both sides: as `syncdiffusion evaluate` has it."""
        total = 0
        for row in self.rows:
            for channel in range(CHANNELS):
                a, b, c, d = (row[CHANNELS * (column + i) + channel] for i in (-1, 0, 1, 2))
                total += abs(c - b - (b - a + d - c) / 2)
        return total / (self.height * CHANNELS)


def unfiltered(kind, row, above):
    """A row of a PNG without its filter (PNG specification, 9.2)."""
    for i in range(len(row)):
        left = row[i - CHANNELS] if i >= CHANNELS else 0
        if kind == 1:
            row[i] = (row[i] + left) & 255
        elif kind == 2:
            row[i] = (row[i] + above[i]) & 255
        elif kind == 3:
            row[i] = (row[i] + (left + above[i]) // 2) & 255
        elif kind == 4:
            corner = above[i - CHANNELS] if i >= CHANNELS else 0
            guess = left + above[i] - corner
            distances = abs(guess - left), abs(guess - above[i]), abs(guess - corner)
            row[i] = (row[i] + (left, above[i], corner)[distances.index(min(distances))]) & 255
    return row
