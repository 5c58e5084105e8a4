"""A canvas to paint landscapes on, back to front: sky, layers of ground, trees, water. NumPy and Pillow only.

Lengths are in shares of the height, so that a scene looks the same at every size. What is painted stays broad on purpose: a
detail below some 8 pixels of 512 is lost to a VAE of factor 8, and a small model learns shapes and light before it learns grain.
"""

import functools

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from . import palette
from .palette import rgb
from .scene import Scene

F = np.float32


@functools.cache
def _noise_tile(roughness: float, k: int, n: int = 512) -> np.ndarray:
    """A periodic tile of noise whose spectrum falls with frequency to the power `roughness`; unit deviation."""
    rng = np.random.default_rng(1000 * k + int(roughness * 100))
    y, x = np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None]
    frequency = np.sqrt(y * y + x * x)
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((n, n))) / frequency**roughness * (frequency > 1.5 / n)
    tile = np.fft.irfft2(spectrum, (n, n))
    return (tile / tile.std()).astype(F)


def noise(rng: np.random.Generator, height: int, width: int, grain: float, stretch: float = 1.0, roughness: float = 1.6) -> np.ndarray:
    """Fractal noise of unit deviation, [height, width]: `grain` pixels a sample down, `grain * stretch` across."""
    tile = _noise_tile(roughness, int(rng.integers(4)))
    n = len(tile)
    h, w = max(4, int(height / grain) + 2), max(4, int(width / (grain * stretch)) + 2)
    rows, columns = (int(rng.integers(n)) + np.arange(h)) % n, (int(rng.integers(n)) + np.arange(w)) % n
    patch = Image.fromarray(np.ascontiguousarray(tile[rows][:, columns]))
    return np.asarray(patch.resize((width, height), Image.Resampling.BICUBIC))


def smoothstep(x, low: float = 0.0, high: float = 1.0):
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


class Canvas:
    """A picture in the making; `image` is [height, width, 3] in 0..1, float32."""

    def __init__(self, rng: np.random.Generator, scene: Scene, height: int, width: int):
        self.rng, self.scene, self.height, self.width = rng, scene, height, width
        self.pixel = height / 512
        self.image = np.zeros((height, width, 3), F)
        self.rows, self.columns = np.arange(height, dtype=F)[:, None], np.arange(width, dtype=F)[None]
        self.horizon = height * 0.55
        self.disc: tuple[float, float, float] | None = None
        self._choose_colours()

    @property
    def silhouette(self) -> bool:
        return self.scene.style == "silhouette"

    @property
    def flat(self) -> bool:
        """Painted without texture."""
        return self.scene.style in ("anime", "silhouette")

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, p: float) -> bool:
        return bool(self.rng.uniform() < p)

    def one_of(self, choices):
        return choices[int(self.rng.integers(len(choices)))]

    def count(self, low: int, high: int) -> int:
        """How many of a thing stand in the whole width, where `low..=high` would stand in a square."""
        return max(1, round(int(self.rng.integers(low, high + 1)) * self.width / self.height))

    def _choose_colours(self):
        scene = self.scene
        top, middle, low, ground, sun = (rgb(*c) for c in self.one_of(palette.SKIES[scene.light]))
        if scene.dream:
            top, middle, low = (rgb(*c) for c in self.one_of(palette.DREAMS))
            if scene.light == "night":
                top, middle, low = top * 0.45, middle * 0.55, low * 0.75
        top, middle, low = (c + self.rng.normal(0, 0.018, 3).astype(F) for c in (top, middle, low))
        if scene.weather == "fog":
            grey = low.mean() * rgb(0.98, 1.0, 1.03)
            top, middle, low = (c * 0.45 + (0.6 * low + 0.4 * grey) * 0.55 for c in (top, middle, low))
        elif scene.weather == "cloudy":
            grey = middle.mean() * rgb(0.96, 0.98, 1.04)
            top, middle, ground = top * 0.75 + grey * 0.25, middle * 0.8 + grey * 0.2, ground * 0.92
        self.zenith, self.middle, self.low, self.ground, self.sunlight = (np.clip(c, 0, 1) for c in (top, middle, low, ground, sun))
        self.sun_side = self.one_of((-1, 1))

    # -- profiles: the height of an edge, one number a column

    def waves(self, bumps: float, octaves: int, fall: float = 0.5) -> np.ndarray:
        """Rolling noise about 0, in -1..1, with `bumps` a square."""
        out, amplitude, total, x = np.zeros(self.width, F), 1.0, 0.0, np.arange(self.width, dtype=F) / self.height
        for _ in range(octaves):
            knots = self.rng.uniform(-1, 1, int(self.width / self.height * bumps) + 4).astype(F)
            at = x * bumps + self.uniform(0, 1)
            i, f = at.astype(int), smoothstep(at % 1)
            out += amplitude * (knots[i] * (1 - f) + knots[i + 1] * f)
            total, amplitude, bumps = total + amplitude, amplitude * fall, bumps * 2.03
        return out / total * 1.4

    def peaks(self, a_square: float, steep: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A jagged range, heights in 0..1 a column; where the summit is that each column belongs to, and how much it does (0 in a valley)."""
        n = max(2, round(a_square * (self.width / self.height + 1)))
        span = self.width / self.height
        summits = (np.arange(n) + self.rng.uniform(-0.35, 0.35, n)) / n * (span + 1) - 0.5
        heights = self.rng.uniform(0.45, 1.0, n)
        left, right = (steep * self.rng.uniform(0.7, 1.5, n) for _ in range(2))
        x = np.arange(self.width)[None] / self.height - summits[:, None]
        tents = heights[:, None] - np.where(x < 0, -x * left[:, None], x * right[:, None])
        owner = tents.argmax(0)
        second, first = np.sort(tents, 0)[-2:]
        ridge = tents.max(0) + 0.07 * self.waves(7, 3, 0.55)
        return np.clip(ridge, 0.02, 1.2).astype(F), (summits[owner] * self.height).astype(F), smoothstep(first - second, 0, 0.3).astype(F)

    # -- sky

    def sky(self, horizon: float):
        """The gradient, the stars, the sun or the moon, the clouds, down to row `horizon`."""
        self.horizon, scene = horizon, self.scene
        t = np.clip(self.rows[:, 0] / horizon, 0, 1)
        knee = self.uniform(0.42, 0.62)
        upper, lower = smoothstep(t, 0, knee)[:, None], smoothstep(t, knee * 0.75, 1.0)[:, None]
        self.image[:] = ((self.zenith * (1 - upper) + self.middle * upper) * (1 - lower) + self.low * lower)[:, None]
        if scene.stars:
            self._stars()
        if scene.sun:
            low, high = {"day": (0.12, 0.3), "dawn": (0.68, 0.96), "sunset": (0.66, 0.96)}[scene.light]
            self._disc(self.uniform(low, high) * horizon, self.uniform(0.045, 0.075), self.sunlight, 0.6)
        elif scene.light in ("dawn", "sunset", "twilight"):  # out of the frame, or just set
            at = self.uniform(-0.2, 1.2) * self.width
            distance = ((self.columns - at) / self.height) ** 2 + ((self.rows - horizon) / (self.height * 0.35)) ** 2
            self.image += (np.exp(-distance) * 0.2)[..., None] * self.sunlight
        if scene.moon:
            self._disc(self.uniform(0.14, 0.5) * horizon, self.uniform(0.04, 0.07), rgb(0.97, 0.96, 0.88), 0.3)
        if scene.shooting_stars:
            self._shooting_stars()
        if scene.weather == "cloudy":
            self._clouds(self.uniform(-0.2, 0.2), 0.95)
        elif scene.weather == "clear" and self.chance(0.35):
            self._clouds(self.uniform(0.9, 1.3), 0.7)
        np.clip(self.image, 0, 1, out=self.image)

    def _disc(self, y: float, radius: float, colour: np.ndarray, glow: float):
        x, r = self.uniform(0.14, 0.86) * self.width, radius * self.height
        distance = np.sqrt((self.columns - x) ** 2 + (self.rows - y) ** 2)
        halo = np.exp(-distance / (r * 3.0)) * glow + np.exp(-((distance / (r * 1.7)) ** 2)) * glow * 0.5
        self.image += halo[..., None] * colour * (1.05 - self.image)
        inside = np.clip((r - distance) / (1.5 * self.pixel) + 0.5, 0, 1)[..., None]
        self.image += inside * (np.minimum(colour * 1.02 + 0.03, 1) - self.image)
        self.disc = (x, y, r)

    def _stars(self):
        n = self.count(50, 110)
        y, x = self.rng.uniform(0, 1, n) ** 1.2 * self.horizon * 0.92, self.rng.uniform(0, self.width, n)
        size = (1.1 + 1.5 * self.rng.uniform(0, 1, n) ** 3) * self.pixel
        light = np.zeros((self.height, self.width), F)
        for cy, cx, r in zip(y, x, size, strict=True):
            top, left = max(0, int(cy - 4 * r)), max(0, int(cx - 4 * r))
            box = (slice(top, int(cy + 4 * r) + 2), slice(left, int(cx + 4 * r) + 2))
            d = (self.rows[box[0]] - cy) ** 2 + (self.columns[:, box[1]] - cx) ** 2
            light[box] = np.maximum(light[box], np.exp(-d / (r * r)))
        light *= 1 - 0.7 * smoothstep(self.rows / self.horizon, 0.4, 1.0)
        self.image += light[..., None] * (rgb(0.97, 0.98, 1) - self.image)

    def _shooting_stars(self):
        angle = self.uniform(0.35, 0.6)
        for _ in range(self.count(2, 4)):
            x, y = self.uniform(0, 1) * self.width, self.uniform(0.06, 0.6) * self.horizon
            length = self.uniform(0.16, 0.3) * self.height
            left, right, low = int(max(0, x - length - 8)), int(min(self.width, x + 9)), int(min(self.height, y + length + 8))
            top = int(max(0, y - 9))
            if right - left < 4 or low - top < 4:
                continue
            dx, dy = self.columns[:, left:right] - x, self.rows[top:low] - y
            along, across = -dx * np.cos(angle) + dy * np.sin(angle), np.abs(dx * np.sin(angle) + dy * np.cos(angle))
            share = np.clip(along / length, 0, 1)
            # Bright at the head, thin and dark at the tail.
            light = (1 - share) ** 1.3 * (along > -3 * self.pixel) * np.exp(-((across / ((2.8 * (1 - share) + 0.8) * self.pixel)) ** 2))
            region = self.image[top:low, left:right]
            region += light[..., None] * (rgb(1, 0.98, 0.95) - region)

    def _clouds(self, threshold: float, opacity: float):
        h = min(int(self.horizon) + 2, self.height)
        field = noise(self.rng, h, self.width, 2.0 * self.pixel, 2.6, 2.0)
        density = smoothstep(field, threshold, threshold + (0.45 if self.flat else 1.2))
        y = self.rows[:h] / self.horizon
        density = density * (0.45 + 0.55 * smoothstep(y, 0.02, 0.45)) * (1 - 0.8 * smoothstep(y, 0.85, 1.0)) * opacity
        above = np.roll(field, int(16 * self.pixel), 0) - field
        lit = np.clip(0.6 - 0.55 * above, 0.1, 1)[..., None]
        bright, dark = (rgb(*c) for c in palette.CLOUDS[self.scene.light])
        if self.silhouette:
            bright, dark = self.low * 0.9 + 0.1, self.middle * 0.85
        region = self.image[:h]
        region += density[..., None] * (dark * (1 - lit) + bright * lit - region)

    # -- ground

    def far(self, share: float) -> float:
        """How much of the haze lies before something, 0 (near) to 1 (far); more of it in fog."""
        return min(1.0, share * 1.15 + 0.12) if self.scene.weather == "fog" else share

    def hazed(self, colour: np.ndarray, far) -> np.ndarray:
        haze = self.low if self.scene.weather == "fog" else self.low * 0.7 + self.middle * 0.3
        return colour * (1 - far) + haze * far

    def shadow(self, far: float) -> np.ndarray:
        """The colour of a silhouette."""
        return self.hazed(self.middle * 0.09, far * 0.8)

    def _blend(self, mask: np.ndarray, colour: np.ndarray, top: int):
        region = self.image[top : top + len(mask)]
        region += mask[..., None] * (np.clip(colour, 0, 1) - region)

    def fill(self, profile: np.ndarray, colour, far: float, *, light: np.ndarray | None = None, snow: np.ndarray | None = None, mist: float = 0.0):
        """Everything under `profile` (a row a column).

        `light` multiplies the colour ([height, width]); snow lies above the row `snow` (a row for every pixel); `mist` collects at the foot.
        """
        top = int(max(0, profile.min() - 2))
        if top >= self.height:
            return
        depth = self.rows[top:] - profile[None]
        mask = np.clip(depth + 0.5, 0, 1)
        if self.silhouette:
            self._blend(mask, self.shadow(far), top)
            return
        shade = np.ones((self.height - top, self.width), F) if light is None else light[top:].copy()
        if not self.flat:
            shade += 0.035 * noise(self.rng, self.height - top, self.width, 3 * self.pixel, 2.5, 1.5)
        paint = rgb(*colour) * shade[..., None]
        if snow is not None:
            cover = smoothstep(snow[top:] - self.rows[top:], -3 * self.pixel, 5 * self.pixel)[..., None]
            paint += cover * (rgb(*palette.SNOW) * (0.3 + 0.7 * np.clip(shade, 0.3, 1.2))[..., None] - paint)
        paint *= self.ground
        haze = np.clip(far + (1 - far) * mist * smoothstep(depth, 0, self.height * 0.22), 0, 1)[..., None]
        self._blend(mask, self.hazed(paint, haze), top)

    def range(self, base: float, height: float, colour, far: float, *, snow: str = "none", mist: float = 0.2, a_square: float = 2.2):
        """A range of mountains whose foot is at row `base`, with a lit and a dark side; `snow` is "none", "caps" or "all"."""
        size = height * self.height
        ridge, summit, belongs = self.peaks(a_square, self.uniform(1.1, 1.7) * 0.3 / max(height, 0.12))
        profile = (base - size * ridge).astype(F)
        wobble = noise(self.rng, self.height, self.width, 5 * self.pixel, 1.0, 1.9)
        # The ridge line runs down from the summit, a little to one side.
        depth = np.maximum(self.rows - profile[None], 0)
        edge = self.columns - summit[None] + self.sun_side * depth * 0.25 + wobble * 0.03 * self.height
        light = 1 + 0.36 * belongs[None] * np.tanh(self.sun_side * edge / (2.5 * self.pixel)) * np.exp(-depth / (size * 0.9))
        line = None
        if snow == "caps":
            line = base - size * (0.6 + 0.12 * wobble + 0.1 * np.sin(self.columns / (0.035 * self.height) + 2 * wobble))
        elif snow == "all":
            line = np.full((self.height, self.width), 2 * self.height, F)
        self.fill(profile, colour, far, light=light.astype(F), snow=line, mist=mist)

    def hill(self, profile: np.ndarray, colour, far: float, relief: float = 0.14, mist: float = 0.0, spread: float = 1.2):
        """Soft ground whose slopes to the sun are lighter."""
        soft = np.convolve(np.pad(profile, 12, mode="edge"), np.ones(25) / 25, "valid")
        slope = np.tanh(np.gradient(soft) * 4 * self.sun_side).astype(F)
        depth = np.maximum(self.rows - profile[None], 0)
        source = np.clip(self.columns - spread * self.sun_side * depth, 0, self.width - 1).astype(np.int32)
        light = 1 + relief * slope[source] * np.exp(-depth / (self.height * 0.3)) - 0.12 * smoothstep(depth, 0, self.height * 0.35)
        self.fill(profile, colour, far, light=light.astype(F), mist=mist)

    # -- things that stand on the ground

    def _stamp(self, shapes, top: int, low: int) -> np.ndarray:
        """Polygons, drawn at twice the size and reduced: a mask of the rows from `top` to `low`."""
        mask = Image.new("L", (self.width * 2, (low - top) * 2), 0)
        draw = ImageDraw.Draw(mask)
        for points in shapes:
            draw.polygon([(x * 2, (y - top) * 2) for x, y in points], fill=255)
        return np.asarray(mask.reduce(2), F) / 255

    def _strip(self, base: np.ndarray, size: float) -> tuple[int, int] | None:
        top, low = int(max(0, base.min() - size * 1.5)), int(min(self.height, base.max() + 4))
        return (top, low) if low - top >= 4 else None

    def conifers(self, base: np.ndarray, size: float, colour, far: float, crowd: float):
        """A row of conifers, `size` pixels high, on the profile `base`; a crowd of 1 touch."""
        strip = self._strip(base, size)
        if strip is None:
            return
        left, right = [], []
        for x in np.sort(self.rng.uniform(-size * 0.2, self.width + size * 0.2, max(1, int(self.width / (size * 0.42) * crowd)))):
            h = size * float(np.clip(1 + 0.26 * self.rng.normal(), 0.5, 1.45))
            w, foot = h * self.uniform(0.2, 0.27), float(base[int(np.clip(x, 0, self.width - 1))]) + 2
            tiers, one, other = 4, [(x, foot - h)], [(x, foot - h)]
            for j in range(tiers):
                inner, outer = 0.55 * j / tiers, (j + 1) / tiers
                y0, y1 = foot - h * (1 - j / tiers) + h * 0.04, foot - h * (1 - (j + 1) / tiers) * 0.94 - h * 0.06
                one += [(x - w * inner, y0), (x - w * outer, y1)]
                other += [(x + w * inner, y0), (x + w * outer, y1)]
            trunk = [(x - w * 0.13, foot - h * 0.08), (x - w * 0.13, foot), (x + w * 0.13, foot), (x + w * 0.13, foot - h * 0.08)]
            left += [[*one, (x, foot - h * 0.06)], trunk]
            right.append([*other, (x, foot - h * 0.06)])
        self._lit_pair(left, right, colour, far, strip)

    def _lit_pair(self, left, right, colour, far: float, strip: tuple[int, int]):
        top, low = strip
        sides = [self._stamp(left, top, low), self._stamp(right, top, low)]
        if self.silhouette:
            self._blend(np.maximum(*sides), self.shadow(far), top)
            return
        lights = (0.78, 1.12) if self.sun_side < 0 else (1.12, 0.78)
        for mask, light in zip(sides, lights, strict=True):
            self._blend(mask, self.hazed(rgb(*colour) * light * self.ground, far), top)

    def round_trees(self, base: np.ndarray, size: float, colours, far: float, crowd: float):
        """A row of broad-leaved trees, `size` pixels high."""
        strip = self._strip(base, size)
        if strip is None:
            return
        top, low = strip
        layers = {}
        for colour in colours:
            layers[colour] = [Image.new("L", (self.width * 2, (low - top) * 2), 0) for _ in range(3)]
        for x in self.rng.uniform(-size * 0.3, self.width + size * 0.3, max(1, int(self.width / (size * 0.8) * crowd))):
            trunk, crown, lit = (ImageDraw.Draw(layer) for layer in layers[self.one_of(list(layers))])
            h, foot = size * self.uniform(0.75, 1.2), float(base[int(np.clip(x, 0, self.width - 1))])

            def ellipse(draw, cx, cy, r):
                draw.ellipse([(cx - r) * 2, (cy - r - top) * 2, (cx + r) * 2, (cy + r - top) * 2], fill=255)

            trunk.rectangle([(x - h * 0.04) * 2, (foot - h * 0.5 - top) * 2, (x + h * 0.04) * 2, (foot + 2 - top) * 2], fill=255)
            for _ in range(5):
                r, cx, cy = h * self.uniform(0.18, 0.28), x + h * self.rng.normal(0, 0.13), foot - h * self.uniform(0.5, 0.8)
                ellipse(crown, cx, cy, r)
                ellipse(lit, cx + self.sun_side * r * 0.3, cy - r * 0.3, r * 0.6)
        for colour, (trunk, crown, lit) in layers.items():
            masks = [np.asarray(layer.reduce(2), F) / 255 for layer in (trunk, crown, lit)]
            if self.silhouette:
                self._blend(np.maximum(masks[0], masks[1]), self.shadow(far), top)
                continue
            for mask, paint in zip(masks, (rgb(0.34, 0.22, 0.14), rgb(*colour) * 0.78, rgb(*colour) * 1.15), strict=True):
                self._blend(mask, self.hazed(paint * self.ground, far), top)

    def palm(self, x: float, foot: float, h: float):
        """One palm, `h` pixels high, that leans and has eight or nine hanging leaves."""
        lean = self.uniform(-0.26, 0.26) * h
        t = np.linspace(0, 1, 10)
        spine, thick = np.stack([x + lean * t**1.8, foot - h * t], 1), h * 0.034 * (1.15 - 0.55 * t)
        trunk = [(a - d, b) for (a, b), d in zip(spine, thick, strict=True)] + [(a + d, b) for (a, b), d in zip(spine, thick, strict=True)][::-1]
        crown_x, crown_y = spine[-1]
        leaves, n = [], int(self.rng.integers(7, 10))
        for i in range(n):
            angle = np.pi * (-0.08 + 1.16 * i / (n - 1)) + self.rng.normal(0, 0.07)
            length, s = h * self.uniform(0.38, 0.5), np.linspace(0, 1, 9)
            mid = np.stack([crown_x + np.cos(angle) * length * s, crown_y - np.sin(angle) * length * s * 0.8 + length * 0.6 * s * s], 1)
            width = h * 0.055 * np.sin(np.pi * np.clip(s * 0.94 + 0.03, 0, 1)) ** 0.7
            upper, lower = mid + np.stack([0 * s, -width * 0.7], 1), mid + np.stack([0 * s, width], 1)
            leaves.append([tuple(p) for p in upper] + [tuple(p) for p in lower[::-1]])
        top, low = int(max(0, crown_y - h * 0.5)), int(min(self.height, foot + 3))
        if low - top < 4:
            return
        against_light = 0.3 if self.scene.light in ("sunset", "twilight", "night") else 1.0
        for shapes, colour in (([trunk], rgb(0.44, 0.32, 0.22)), (leaves, rgb(0.10, 0.46, 0.16))):
            paint = self.shadow(0) if self.silhouette else colour * self.ground * against_light
            self._blend(self._stamp(shapes, top, low), paint, top)

    def flowers(self, top: float):
        """Dots in one colour, larger the nearer they are, from row `top` down."""
        n, span = self.count(260, 420), self.height - top
        y, x = top + span * self.rng.uniform(0, 1, n) ** 0.8, self.rng.uniform(0, self.width, n)
        mask = Image.new("L", (self.width * 2, self.height * 2), 0)
        draw = ImageDraw.Draw(mask)
        for cx, cy in zip(x * 2, y * 2, strict=True):
            r = (1.2 + 5.5 * (cy / 2 - top) / span) * self.pixel * 2
            draw.ellipse([cx - r, cy - r * 0.8, cx + r, cy + r * 0.8], fill=255)
        petal = rgb(*self.one_of(palette.PETALS)) * (0.35 + 0.65 * self.ground)
        self._blend(np.asarray(mask.reduce(2), F) / 255, petal, 0)

    # -- water

    def water(self, top: float, tint, depth: float):
        """Mirrors what stands above row `top` in the rows below it; `depth` is the share of the water's own colour."""
        top = int(top)
        h = self.height - top
        if h < 4:
            return
        down = np.arange(h, dtype=F)[:, None]
        ripple = noise(self.rng, h, self.width, 2.0 * self.pixel, 6.0, 1.5)
        shift = ripple * (1.2 + down * 0.03) * self.pixel
        rows = np.clip(top - 1 - down * 0.95 + shift, 0, max(0, top - 1)).astype(np.int32)
        columns = np.clip(self.columns + shift, 0, self.width - 1).astype(np.int32)
        share = down / h
        own = self.middle * 0.25 if self.silhouette else rgb(*tint) * self.ground * 0.9 + self.low * 0.12
        k = (depth + (1 - depth) * 0.4 * share)[..., None]
        out = self.image[rows, columns] * (1 - k) + own * k
        out += (smoothstep(ripple, 1.0, 2.0) * 0.14 * (1 - share * 0.4))[..., None] * (self.low - out)
        if self.disc is not None:
            x, _, r = self.disc
            glitter = np.exp(-(((self.columns - x) / (r * (0.8 + 2.0 * share))) ** 2)) * smoothstep(ripple, -0.5, 0.7)
            out += (glitter * 0.85)[..., None] * (self.sunlight - out)
        self.image[top:] = np.clip(out, 0, 1)

    # -- town

    def buildings(self, foot: float, tallest: float, far: float, lit: float):
        """A row of towers on row `foot`, the tallest `tallest` pixels high; a share `lit` of the windows shines."""
        rng, h, dim = self.rng, self.height, {"night": 0.42, "twilight": 0.55}.get(self.scene.light, 0.95)
        crowd, x = 1 + 0.3 * self.waves(1.6, 2), -self.uniform(0, 0.05) * h
        cell = max(4, round(self.uniform(11, 14) * self.pixel))
        while x < self.width:
            w = h * self.uniform(0.06, 0.13)
            tall = tallest * self.uniform(0.3, 1.0) * float(crowd[int(np.clip(x, 0, self.width - 1))])
            left, right, roof, low = int(max(0, x)), int(min(self.width, x + w)), int(max(0, foot - tall)), int(foot)
            if right - left > 3 and low - roof > 3:
                boxes, inset = [(roof, left, right)], (right - left) // 4
                kind = rng.uniform()
                if kind < 0.2 and inset > 2:  # a set-back top
                    boxes.append((max(0, int(roof - tall * 0.13)), left + inset, right - inset))
                elif kind < 0.32:  # a spire
                    middle = (left + right) // 2
                    boxes.append((max(0, int(roof - tall * 0.22)), middle - max(1, round(self.pixel * 2)), middle + max(1, round(self.pixel * 2))))
                wall = rgb(*self.one_of(palette.WALLS)) * self.uniform(0.85, 1.12)
                paint = self.shadow(far) if self.silhouette else self.hazed(wall * self.ground * dim, far)
                for y0, x0, x1 in boxes:
                    self.image[y0:low, x0:x1] = paint
                if not self.silhouette:
                    edge = max(2, (right - left) // 5)
                    side = slice(left, left + edge) if self.sun_side < 0 else slice(right - edge, right)
                    self.image[roof:low, side] = np.clip(paint * 1.18, 0, 1)
                self._windows(roof, low, left, right, cell, paint, far, lit)
            x += w + h * self.uniform(0, 0.012)

    def _windows(self, roof: int, low: int, left: int, right: int, cell: int, wall: np.ndarray, far: float, lit: float):
        glass = wall * 0.8 + self.middle * 0.2 if not self.silhouette else wall
        pane = max(2, round(cell * 0.55))
        margin = max(1, (right - left - (right - left) // cell * cell + cell - pane) // 2)
        for y in range(roof + cell // 2, low - pane, cell):
            for x in range(left + margin, right - pane, cell):
                shines = self.rng.uniform() < lit
                colour = self.hazed(rgb(1.0, 0.84, 0.48), far * 0.6) if shines else glass
                self.image[y : y + pane, x : x + pane] = colour

    # -- fog

    def fog(self):
        """A bank of it about the horizon."""
        if self.scene.weather != "fog":
            return
        field = noise(self.rng, self.height, self.width, 6 * self.pixel, 3.0, 1.9)
        band = np.exp(-((((self.rows - self.horizon) / self.height - 0.06) / 0.2) ** 2))
        self.image += np.clip(band * (0.42 + 0.16 * field), 0, 0.8)[..., None] * (self.low * 0.75 + self.low.mean() * 0.25 - self.image)


def brighten(image: np.ndarray, saturation: float) -> np.ndarray:
    """Colours further from their grey by a factor."""
    grey = (image @ rgb(0.3, 0.59, 0.11))[..., None]
    return grey + (image - grey) * saturation


def soften(image: np.ndarray, size: int) -> np.ndarray:
    """The median of a square of `size` pixels, which keeps edges."""
    picture = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.MedianFilter(size)), F) / 255
