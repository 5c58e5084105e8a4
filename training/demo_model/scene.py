"""What a scene may show, and how scenes are drawn at random: light, biome, weather, season, style and a few extras."""

from dataclasses import dataclass, fields

import numpy as np

LIGHTS = ("dawn", "day", "sunset", "twilight", "night")
BIOMES = ("mountains", "snowy", "lake", "grassland", "desert", "beach", "forest", "city")
WEATHERS = ("clear", "cloudy", "fog")
SEASONS = ("spring", "summer", "autumn", "winter")
STYLES = ("photo", "anime", "watercolor", "oil", "silhouette")
EXTRAS = ("sun", "moon", "stars", "shooting_stars", "palms", "flowers", "water")

GROUPS = {"light": LIGHTS, "biome": BIOMES, "weather": WEATHERS, "season": SEASONS, "style": STYLES}
LABELS = [(group, name) for group, names in GROUPS.items() for name in names] + [("extra", name) for name in EXTRAS]
"""The 32 labels of a scene, in the order of `labels`."""

# Where the seasons do not show.
SEASONLESS = ("desert", "beach", "city")


@dataclass(frozen=True)
class Scene:
    """One scene; the renderer draws it and the captions describe it."""

    light: str
    biome: str
    weather: str
    season: str
    style: str
    sun: bool
    moon: bool
    stars: bool
    shooting_stars: bool
    palms: bool
    flowers: bool
    water: bool
    dream: bool
    """A silhouette before a sky of colours that no daylight has."""

    @property
    def dark(self) -> bool:
        return self.light in ("twilight", "night")

    def labels(self) -> np.ndarray:
        """Which of `LABELS` hold: 32 numbers, 0 or 1, float32."""
        return np.array(
            [float(getattr(self, name) if group == "extra" else getattr(self, group) == name) for group, name in LABELS],
            np.float32,
        )


def sample(rng: np.random.Generator, **wanted) -> Scene:
    """A scene at random that agrees with itself; `wanted` fixes any of its fields."""
    unknown = set(wanted) - {field.name for field in fields(Scene)}
    if unknown:
        raise ValueError(f"a scene has no {', '.join(sorted(unknown))}")

    def chance(p: float) -> bool:
        return bool(rng.uniform() < p)

    def pick(group: str, p: list[float]) -> str:
        drawn = str(rng.choice(GROUPS[group], p=p))
        return wanted.get(group, drawn)

    biome = pick("biome", [0.16, 0.12, 0.13, 0.14, 0.09, 0.14, 0.12, 0.10])
    style = pick("style", [0.42, 0.18, 0.14, 0.12, 0.14])
    light = pick("light", [0.15, 0.31, 0.22, 0.16, 0.16])
    if biome == "city" and "light" not in wanted and chance(0.4):
        light = "night"
    if style == "silhouette" and light == "day" and "light" not in wanted:
        light = str(rng.choice(["dawn", "sunset", "twilight", "night"]))
    weather = pick("weather", [0.56, 0.26, 0.18])
    season = pick("season", [0.25, 0.25, 0.25, 0.25])
    if "season" not in wanted:
        season = "winter" if biome == "snowy" else "summer" if biome in SEASONLESS else season

    dark, clear, fog = light in ("twilight", "night"), weather == "clear", weather == "fog"
    shooting = dark and clear and chance(0.5 if style == "silhouette" else 0.14)
    scene = {
        "light": light,
        "biome": biome,
        "weather": weather,
        "season": season,
        "style": style,
        "sun": not dark and not fog and chance(0.25 if light == "day" else 0.55),
        "moon": dark and not fog and chance(0.45 if light == "night" else 0.2),
        "stars": shooting or (light == "night" and not fog and chance(0.95 if clear else 0.3)) or (light == "twilight" and clear and chance(0.35)),
        "shooting_stars": shooting,
        "palms": biome == "beach" and chance(0.7),
        "flowers": biome == "grassland" and style != "silhouette" and season in ("spring", "summer") and chance(0.45),
        "water": biome in ("lake", "beach") or (biome == "city" and chance(0.6)),
        "dream": style == "silhouette" and chance(0.6),
    }
    return Scene(**(scene | wanted))
