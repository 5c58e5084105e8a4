"""Captions for scenes, from templates. They leave things open, but what they say is so."""

import numpy as np

from .scene import EXTRAS, LABELS, SEASONLESS, STYLES, Scene

BIOME = {
    "mountains": "a mountain range|mountains|a mountain landscape|mountain peaks|rocky mountains|a mountain|the alps|a mountain valley|a majestic mountain range|layered mountains|mountain ridges",
    "snowy": "a snowy mountain|snowy mountains|snow capped mountains|a snow-capped mountain range|a snowy mountain peak|snowy peaks|icy mountains|snow mountains",
    "lake": "a mountain lake|a lake|a lake with reflections|a calm lake|mountains reflected in a lake|a lake in the mountains|a lakeside|still water",
    "grassland": "a grassland|rolling hills|a green meadow|grassy hills|a meadow|a field|a prairie|the countryside|hills|farmland|a hill|grass",
    "desert": "a desert|desert dunes|sand dunes|a sandy desert|the sahara|dunes|a desert landscape|a dry desert",
    "beach": "a beach|a sandy beach|a tropical beach|the ocean|the sea|a beachfront|a seaside|the coast|an ocean shore|a seascape|an island beach|a beautiful ocean",
    "forest": "a forest|the woods|trees|a dense forest|a woodland|forest trees|a deep forest",
    "city": "a city skyline|a city|skyscrapers|a skyline|a modern city|buildings|downtown|a cityscape|a city with tall buildings|a metropolis|a town",
}
ANYWHERE = "a landscape|natural landscape|a natural landscape|a scenery|a dreamy scene|nature|a scene|a beautiful landscape|a view|a panorama|a wide landscape|landscape|a fantasy landscape|a wallpaper|a background"
LIGHT = {
    "day": "in daylight|during the day|at noon|by day|on a bright day|in the afternoon",
    "dawn": "at dawn|at sunrise|in the early morning|in the morning|at daybreak|in soft morning light|in pastel colors",
    "sunset": "at sunset|during sunset|at golden hour|in the evening sun|under an orange sky|in the warm evening light|with a red sky|during a beautiful sunset",
    "twilight": "at twilight|at dusk|in the blue hour|under a purple sky|in the twilight|in the late evening|after sunset",
    "night": "at night|under a night sky|at midnight|in the dark|on a dark night|by night|during the night",
}
WEATHER = {
    "clear": "under a clear sky|with a clear sky|in clear weather",
    "cloudy": "with clouds|under a cloudy sky|with a cloudy sky|in cloudy weather|with dramatic clouds|under big clouds",
    "fog": "with a misty fog|in the fog|in mist|with fog|in a misty haze|on a foggy day|in heavy fog|in thick mist",
}
SEASON = {
    "spring": "in spring|in springtime|of spring",
    "summer": "in summer|in summertime|of summer",
    "autumn": "in autumn|in fall|with autumn colors|with fall foliage|of autumn",
    "winter": "in winter|in the snow|covered in snow|in wintertime|with snow",
}
EXTRA = {
    "sun": "with the sun|with a glowing sun|with the sun in the sky",
    "moon": "with a full moon|with the moon|under the moon|with a bright moon|in the moonlight",
    "stars": "under a starry sky|with stars|with a sky full of stars|under the stars",
    "shooting_stars": "with shooting stars|with falling stars|with meteors|with a shooting star",
    "palms": "with palm trees|with palms|with a palm tree|with coconut trees",
    "flowers": "with flowers|with wildflowers|full of flowers|with a field of flowers",
    "water": "with water reflections|by the water|with reflections in the water|at the waterfront",
}
ADJECTIVE = {
    ("light", "day"): "bright|daylight",
    ("light", "night"): "dark|nocturnal",
    ("weather", "fog"): "misty|foggy|hazy",
    ("weather", "cloudy"): "cloudy",
    ("season", "spring"): "spring",
    ("season", "summer"): "summer",
    ("season", "autumn"): "autumn",
    ("season", "winter"): "winter|snowy",
}
BEFORE = {
    "photo": "a photo of|a film photo of|a photograph of|a picture of|a landscape photo of|a realistic photo of|an image of|photo of",
    "anime": "an anime illustration of|anime style illustration of|an anime scene of|a cartoon of|anime art of|an illustration of|cartoon panorama of",
    "watercolor": "a watercolor painting of|a watercolor of|watercolor art of|an aquarelle of|a watercolour painting of",
    "oil": "an oil painting of|a painting of|an impressionist painting of|oil on canvas of|a brush painting of",
    "silhouette": "silhouette wallpaper of|a silhouette of|a silhouette illustration of|silhouettes of|a minimalist silhouette of",
}
AFTER = {
    "photo": "photo|film photo|photography",
    "anime": "in anime style illustration|in anime style|anime style|in cartoon style|anime",
    "watercolor": "in watercolor|watercolor style|as a watercolor|watercolor",
    "oil": "in oil|oil painting style|as an oil painting|oil painting",
    "silhouette": "as a silhouette|silhouette style|in silhouette|silhouette wallpaper",
}
PRAISE = "beautiful|peaceful|dreamy|scenic|majestic|quiet|vast"
CLOSING = "beautiful|highly detailed|4k|scenic|stunning|peaceful|wide angle|panorama|best quality|masterpiece|calm|8k wallpaper|panoramic view"

# How often a caption names what is there.
NAMED = {"palms": 0.7, "shooting_stars": 0.85, "flowers": 0.8, "stars": 0.5, "moon": 0.6, "sun": 0.35, "water": 0.4}
WEATHER_NAMED = {"clear": 0.12, "cloudy": 0.6, "fog": 0.85}


def caption(rng: np.random.Generator, scene: Scene) -> tuple[str, np.ndarray]:
    """A caption of a scene, and which of its labels the caption states: 32 numbers, 0 or 1."""
    stated = np.zeros(len(LABELS), np.float32)

    def chance(p: float) -> bool:
        return bool(rng.uniform() < p)

    def pick(choices: str) -> str:
        options = choices.split("|")
        return options[int(rng.integers(len(options)))]

    def state(group: str, name: str):
        stated[LABELS.index((group, name))] = 1

    if chance(0.86):
        state("biome", scene.biome)
        body = pick(BIOME[scene.biome])
    else:
        body = pick(ANYWHERE)

    tails, adjective = [], ""
    season_named = 0 if scene.biome in SEASONLESS else 0.4 if scene.season == "summer" else 0.6
    for group, words, p in (("light", LIGHT, 0.72), ("weather", WEATHER, WEATHER_NAMED[scene.weather]), ("season", SEASON, season_named)):
        if not chance(p):
            continue
        name = getattr(scene, group)
        state(group, name)
        if (group, name) in ADJECTIVE and not adjective and chance(0.25):
            adjective = pick(ADJECTIVE[group, name])
        else:
            tails.append(pick(words[name]))
    for name in EXTRAS:
        # Lakes and beaches say that there is water.
        if getattr(scene, name) and chance(NAMED[name]) and (name != "water" or scene.biome == "city"):
            state("extra", name)
            tails.append(pick(EXTRA[name]))
    rng.shuffle(tails)
    for word in (adjective, pick(PRAISE) if chance(0.3) else ""):
        body = _with_adjective(body, word)
    text = " ".join([body, *tails])

    if chance(0.62 if scene.style == "photo" else 0.9):
        state("style", scene.style)
        if scene.style != "photo" and chance(0.4):
            text += (", " if chance(0.4) else " ") + pick(AFTER[scene.style])
        else:
            text = pick(BEFORE[scene.style]) + " " + text
    if chance(0.2):
        text += ", " + pick(CLOSING)
    return (text[0].upper() + text[1:] if chance(0.25) else text), stated


def _with_adjective(body: str, word: str) -> str:
    if not word:
        return body
    article, _, rest = body.partition(" ")
    if article in ("a", "an"):
        return f"{'an' if word[0] in 'aeiou' else 'a'} {word} {rest}"
    return f"the {word} {rest}" if article == "the" else f"{word} {body}"


def vocabulary() -> list[str]:
    """All the words of the templates."""
    tables = (BIOME, LIGHT, WEATHER, SEASON, EXTRA, ADJECTIVE, BEFORE, AFTER)
    phrases = [phrase for table in tables for phrase in table.values()] + [ANYWHERE, PRAISE, CLOSING, "|".join(STYLES)]
    return sorted({word for phrase in phrases for word in phrase.replace("|", " ").lower().split()})
