"""Scenes to pictures: everything the demo model ever sees is drawn here. No photograph and no third-party picture is involved."""

import numpy as np

from . import palette
from .canvas import Canvas, brighten, noise, soften
from .palette import rgb
from .scene import Scene


def render(rng: np.random.Generator, scene: Scene, height: int = 512, width: int = 512) -> np.ndarray:
    """The picture of a scene: uint8 [height, width, 3]. The same generator state gives the same picture."""
    canvas = Canvas(rng, scene, height, width)
    PAINTERS[scene.biome](canvas)
    canvas.fog()
    styled = STYLING[scene.style](np.clip(canvas.image, 0, 1), rng)
    return (np.clip(styled, 0, 1) * 255 + 0.5).astype(np.uint8)


# -- biomes, each painted from the sky to what is nearest


def mountains(c: Canvas):
    season, snowy = c.scene.season, c.scene.biome == "snowy"
    h = c.height
    c.sky(h * c.uniform(0.54, 0.64))
    rocks = palette.ROCKS[1] if c.chance(0.25) and not snowy else palette.ROCKS[0]
    snow = "all" if snowy or season == "winter" else "caps" if c.chance(0.5) else "none"
    tall, n = c.uniform(0.34, 0.46) if snowy else c.uniform(0.26, 0.40), int(c.rng.integers(3, 5))
    for i in range(n):
        near = i / (n - 1)
        foot = c.horizon + h * (0.02 + 0.16 * near)
        c.range(
            foot,
            tall * (1 - 0.3 * near),
            rocks[min(i, 3)],
            c.far(0.66 * (1 - near) ** 1.2 + 0.06),
            snow=snow if near < 1 or snowy else "none",
            mist=0.45 * (1 - near),
        )
    if c.chance(0.85):
        ground = h - h * c.uniform(0.1, 0.2) + h * 0.05 * c.waves(1.2, 3)
        grass = (0.88, 0.92, 0.98) if snowy else c.one_of(palette.GRASS[season])
        if c.chance(0.75):
            needles = np.array(c.one_of(palette.NEEDLES["winter" if snowy else season]), np.float32) * 0.8
            c.conifers(ground + 4, h * c.uniform(0.09, 0.17), needles, c.far(0.04), c.uniform(0.25, 0.9))
        c.hill(ground, np.array(grass, np.float32) * 0.8, c.far(0.03))


def lake(c: Canvas):
    season, h = c.scene.season, c.height
    c.sky(h * c.uniform(0.50, 0.58))
    rocks = palette.ROCKS[1] if c.chance(0.2) else palette.ROCKS[0]
    snow = "all" if season == "winter" else "caps" if c.chance(0.5) else "none"
    tall, n = c.uniform(0.22, 0.34), int(c.rng.integers(2, 4))
    for i in range(n):
        near = i / (n - 1)
        c.range(c.horizon + h * 0.01, tall * (1 - 0.4 * near), rocks[i], c.far(0.55 * (1 - near) + 0.08), snow=snow if near < 1 else "none", mist=0.25)
    shore = np.full(c.width, c.horizon + 1, np.float32)
    if c.chance(0.75):
        if season in ("spring", "autumn") and c.chance(0.5):
            c.round_trees(shore, h * c.uniform(0.06, 0.1), palette.LEAVES[season], c.far(0.15), 1.6)
        else:
            c.conifers(shore, h * c.uniform(0.06, 0.11), c.one_of(palette.NEEDLES[season]), c.far(0.18), 1.3)
    c.water(c.horizon, (0.08, 0.30, 0.46), 0.3)
    if c.chance(0.5):
        bank = h - h * c.uniform(0.05, 0.12) + h * 0.04 * c.waves(1.5, 3)
        needles = np.array(c.one_of(palette.NEEDLES[season]), np.float32) * 0.6
        c.conifers(bank + 3, h * c.uniform(0.16, 0.3), needles, 0, 0.35)
        c.hill(bank, np.array(c.one_of(palette.GRASS[season]), np.float32) * 0.65, 0)


def grassland(c: Canvas):
    season, h = c.scene.season, c.height
    c.sky(h * c.uniform(0.44, 0.58))
    if c.chance(0.45):
        for near in (0.0, 1.0):
            snow = "all" if season == "winter" else "caps" if near == 0 and c.chance(0.5) else "none"
            c.range(c.horizon + h * 0.04, 0.17 - 0.06 * near, palette.ROCKS[0][int(near)], c.far(0.6 - 0.2 * near), snow=snow, mist=0.4)
    grass, n = palette.GRASS[season], int(c.rng.integers(3, 6))
    for i in range(n):
        near = i / (n - 1)
        crest = c.horizon + h * (0.02 + 0.33 * near**1.2) - h * (0.03 + 0.05 * near) * c.waves(1.5 - 0.5 * near, 2, 0.35)
        if i and c.chance(0.5):
            size, far = h * (0.05 + 0.1 * near), c.far(0.4 * (1 - near))
            if c.chance(0.65):
                c.round_trees(crest + 3, size, palette.LEAVES[season], far, c.uniform(0.1, 0.5))
            else:
                c.conifers(crest + 3, size * 1.2, c.one_of(palette.NEEDLES[season]), far, c.uniform(0.1, 0.35))
        c.hill(crest, np.array(c.one_of(grass), np.float32) * (1.08 - 0.22 * near), c.far(0.5 * (1 - near) ** 1.3), 0.18)
    if c.scene.flowers:
        c.flowers(c.horizon + h * 0.12)


def desert(c: Canvas):
    h = c.height
    c.sky(h * c.uniform(0.44, 0.58))
    if c.chance(0.3):
        c.range(c.horizon + h * 0.04, 0.13, (0.66, 0.44, 0.36), c.far(0.5), mist=0.3)
    sand, n = np.array(c.one_of(palette.SANDS), np.float32), int(c.rng.integers(3, 6))
    for i in range(n):
        near = i / (n - 1)
        crest = c.horizon + h * (0.03 + 0.32 * near) - h * (0.05 + 0.08 * near) * c.waves(1.6 - 0.7 * near, 2, 0.25)
        c.hill(crest, sand * (1.04 - 0.14 * near), c.far(0.45 * (1 - near) ** 1.2), 0.30, spread=1.8)


def beach(c: Canvas):
    h = c.height
    c.sky(h * c.uniform(0.44, 0.56))
    if c.chance(0.3):
        c.range(c.horizon + 2, 0.09, (0.22, 0.42, 0.40), c.far(0.45), a_square=1.4)
    c.water(c.horizon, c.one_of(palette.SEAS), 0.66 if c.scene.light == "day" else 0.4)
    shore = h * c.uniform(0.70, 0.82) + h * c.uniform(0.02, 0.05) * c.waves(1.0, 2, 0.4)
    c.fill(shore - h * 0.022, (0.94, 0.97, 0.97), 0.05)  # foam
    c.fill(shore, (0.70, 0.58, 0.42), 0.02)  # wet sand
    c.hill(shore + h * c.uniform(0.03, 0.06), np.array((0.95, 0.84, 0.62), np.float32) * c.uniform(0.94, 1.04), 0, 0.06)
    if c.scene.palms:
        for _ in range(c.count(1, 3)):
            x = c.uniform(0.04, 0.96) * c.width
            c.palm(x, float(shore[int(x)]) + h * c.uniform(0.06, 0.16), h * c.uniform(0.38, 0.62))


def forest(c: Canvas):
    season, h = c.scene.season, c.height
    c.sky(h * c.uniform(0.40, 0.54))
    if c.chance(0.45):
        c.range(c.horizon + h * 0.06, c.uniform(0.16, 0.26), palette.ROCKS[0][0], c.far(0.6), snow="all" if season == "winter" else "none", mist=0.4)
    broad_leaved = c.chance({"autumn": 0.6, "winter": 0.0}.get(season, 0.25))
    n = int(c.rng.integers(4, 6))
    for i in range(n):
        near = i / (n - 1)
        ground = c.horizon + h * (0.05 + 0.42 * near) - h * 0.06 * c.waves(1.6, 3, 0.5)
        size, far = h * (0.09 + 0.20 * near**1.2), c.far(0.66 * (1 - near) ** 1.1)
        if broad_leaved:
            leaves = [tuple(np.array(leaf, np.float32) * (1.1 - 0.35 * near)) for leaf in palette.LEAVES[season]]
            c.round_trees(ground, size, leaves, far, 1.5)
            floor = np.array(palette.LEAVES[season][0], np.float32) * (0.9 - 0.35 * near)
        else:
            floor = np.array(c.one_of(palette.NEEDLES[season]), np.float32) * (1.15 - 0.5 * near)
            c.conifers(ground, size, floor, far, 1.2)
        c.fill(ground - size * 0.1, floor * 0.9, far, mist=0.7 if c.scene.weather == "fog" else 0.25)


def city(c: Canvas):
    h, light = c.height, c.scene.light
    c.sky(h * (c.uniform(0.58, 0.68) if c.scene.water else c.uniform(0.72, 0.84)))
    if c.scene.dark:
        glow = np.exp(-np.maximum(c.horizon - c.rows, 0) / (h * 0.16))[..., None] * (0.34 if light == "night" else 0.16)
        c.image += glow * rgb(0.9, 0.55, 0.35) * (1 - c.image)
    lit = {"night": 0.55, "twilight": 0.4, "sunset": 0.12, "dawn": 0.06, "day": 0.0}[light]
    for far, tallest, shine in ((0.55, 0.46, 0.0), (0.28, 0.40, lit * 0.7), (0.04, 0.28, lit)):
        c.buildings(c.horizon, tallest * c.uniform(0.8, 1.1) * h, c.far(far), shine)
    if c.scene.water:
        c.water(c.horizon, (0.05, 0.16, 0.30), 0.35)
        return
    ground = c.horizon - h * 0.01 + h * 0.01 * c.waves(4, 2)
    c.round_trees(ground + h * 0.03, h * 0.07, ((0.12, 0.30, 0.14), (0.16, 0.34, 0.14)), c.far(0.05), 1.0)
    c.hill(ground, (0.18, 0.26, 0.20), 0)


PAINTERS = {
    "mountains": mountains,
    "snowy": mountains,
    "lake": lake,
    "grassland": grassland,
    "desert": desert,
    "beach": beach,
    "forest": forest,
    "city": city,
}


# -- styles: what is done to the painted picture


def photo(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = np.clip(brighten(image, 1.08), 0, 1)
    return image + 0.3 * (image * image * (3 - 2 * image) - image)


def anime(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(brighten(image, 1.4) * 1.04 + 0.02, 0, 1)


def _edges(image: np.ndarray, reach: int) -> np.ndarray:
    grey = image @ rgb(0.3, 0.59, 0.11)
    down, across = np.abs(np.roll(grey, reach, 0) - grey), np.abs(np.roll(grey, reach, 1) - grey)
    down[:reach], across[:, :reach] = 0, 0
    return np.clip((down + across) * 1.6, 0, 0.35)[..., None]


def watercolor(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Washes on white paper: pale, with darker rims and pigment that runs."""
    h, w = image.shape[:2]
    pixel = h / 512
    image = soften(image, 2 * max(1, round(3 * pixel)) + 1)
    rims = _edges(image, max(1, round(2 * pixel)))
    image = 1 - (1 - brighten(image, 1.2)) * 0.8
    run = noise(rng, h, w, 8 * pixel, 1.2, 1.7)[..., None]
    return image * (1 - rims) + 0.035 * run * np.minimum(1, 1.7 * (1 - image) + 0.2)


def oil(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Broad strokes: the paint is pulled about, and each stroke is a little lighter or darker."""
    h, w = image.shape[:2]
    pixel = h / 512
    one, other = (noise(rng, h, w, 4 * pixel, 2.2, 1.6) for _ in range(2))
    rows = np.clip(np.arange(h)[:, None] + np.round(one * 1.5) * 3.5 * pixel, 0, h - 1).astype(np.int32)
    columns = np.clip(np.arange(w)[None] + np.round(other * 1.5) * 7 * pixel, 0, w - 1).astype(np.int32)
    return brighten(image[rows, columns], 1.3) * (1 + 0.05 * np.round(one * 1.5) + 0.03 * np.round(other * 1.5))[..., None] * 0.97 + rgb(0.03, 0.02, 0.0)


def silhouette(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image


STYLING = {"photo": photo, "anime": anime, "watercolor": watercolor, "oil": oil, "silhouette": silhouette}
