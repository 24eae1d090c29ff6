"""Drawn scenes, each with the facts from which a caption can be written."""

import random
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

COLOURS = {
    "red": "#d8332f",
    "orange": "#f08a24",
    "yellow": "#f7d038",
    "green": "#3fa34d",
    "blue": "#2f6fd8",
    "purple": "#7d3fb5",
    "pink": "#f27fb2",
    "white": "#f4f1ea",
}

# Sky above, sky at the horizon, ground at the horizon, ground below; the horizon's height, 0 to 1.
PLACES = {
    "sea": ("#6fb7e9", "#d6eefb", "#2f7fb5", "#174d7c", 0.55),
    "meadow": ("#8cc9f0", "#e8f6ff", "#86bf4f", "#4b8a2e", 0.6),
    "desert": ("#f2c879", "#fbe9c2", "#e0a95c", "#b97a35", 0.58),
    "night": ("#0b1030", "#26306b", "#1c2440", "#0a0e1c", 0.7),
    "snow": ("#b9cfe0", "#eaf2f8", "#fdfdfd", "#cfdde8", 0.55),
    "sunset": ("#6a2c70", "#f9844a", "#b83b5e", "#3d1f47", 0.62),
    "space": ("#05040d", "#14102b", "#14102b", "#05040d", 1.0),
    "city": ("#a9b8c6", "#dfe6ec", "#7c7f85", "#4c4f55", 0.72),
    "forest": ("#9fc7a5", "#dcefd8", "#3f6b3a", "#22401f", 0.6),
    "cave": ("#2b2320", "#4a3b33", "#3a2e28", "#1c1613", 0.75),
}

# Shapes in a unit square, y down: kind, coordinates, shade. Shades: main, dark, light, ink, glass.
E, R, P = "ellipse", "rectangle", "polygon"
THINGS: dict[str, list[tuple[str, tuple[float, ...], str]]] = {
    "house": [
        (R, (0.15, 0.45, 0.85, 1.0), "main"),
        (P, (0.05, 0.47, 0.5, 0.05, 0.95, 0.47), "dark"),
        (R, (0.42, 0.68, 0.58, 1.0), "ink"),
        (R, (0.22, 0.55, 0.36, 0.7), "glass"),
        (R, (0.64, 0.55, 0.78, 0.7), "glass"),
    ],
    "boat": [
        (P, (0.05, 0.68, 0.95, 0.68, 0.78, 0.98, 0.22, 0.98), "main"),
        (R, (0.48, 0.08, 0.53, 0.68), "ink"),
        (P, (0.55, 0.1, 0.55, 0.62, 0.9, 0.62), "light"),
        (P, (0.46, 0.2, 0.46, 0.62, 0.16, 0.62), "dark"),
    ],
    "car": [
        (R, (0.04, 0.5, 0.96, 0.82), "main"),
        (P, (0.2, 0.5, 0.32, 0.22, 0.7, 0.22, 0.84, 0.5), "dark"),
        (P, (0.27, 0.48, 0.36, 0.28, 0.49, 0.28, 0.49, 0.48), "glass"),
        (P, (0.53, 0.48, 0.53, 0.28, 0.67, 0.28, 0.76, 0.48), "glass"),
        (E, (0.14, 0.66, 0.38, 0.96), "ink"),
        (E, (0.62, 0.66, 0.86, 0.96), "ink"),
    ],
    "rocket": [
        (P, (0.3, 0.75, 0.1, 1.0, 0.35, 0.92), "dark"),
        (P, (0.7, 0.75, 0.9, 1.0, 0.65, 0.92), "dark"),
        (P, (0.5, 0.0, 0.7, 0.3, 0.7, 0.88, 0.3, 0.88, 0.3, 0.3), "main"),
        (E, (0.4, 0.32, 0.6, 0.52), "glass"),
        (P, (0.38, 0.88, 0.62, 0.88, 0.5, 1.0), "light"),
    ],
    "fish": [
        (P, (0.7, 0.5, 1.0, 0.22, 1.0, 0.78), "dark"),
        (E, (0.02, 0.22, 0.8, 0.78), "main"),
        (E, (0.14, 0.38, 0.26, 0.5), "glass"),
        (E, (0.18, 0.42, 0.23, 0.47), "ink"),
        (P, (0.36, 0.24, 0.6, 0.05, 0.56, 0.26), "dark"),
    ],
    "flower": [
        (R, (0.47, 0.5, 0.53, 1.0), "leaf"),
        (E, (0.53, 0.7, 0.8, 0.84), "leaf"),
        (E, (0.36, 0.02, 0.64, 0.3), "main"),
        (E, (0.36, 0.42, 0.64, 0.7), "main"),
        (E, (0.14, 0.22, 0.44, 0.5), "main"),
        (E, (0.56, 0.22, 0.86, 0.5), "main"),
        (E, (0.38, 0.24, 0.62, 0.48), "light"),
    ],
    "cat": [
        (P, (0.12, 0.4, 0.16, 0.02, 0.45, 0.26), "dark"),
        (P, (0.88, 0.4, 0.84, 0.02, 0.55, 0.26), "dark"),
        (E, (0.08, 0.16, 0.92, 0.96), "main"),
        (E, (0.24, 0.42, 0.4, 0.6), "glass"),
        (E, (0.6, 0.42, 0.76, 0.6), "glass"),
        (E, (0.29, 0.46, 0.35, 0.58), "ink"),
        (E, (0.65, 0.46, 0.71, 0.58), "ink"),
        (P, (0.45, 0.66, 0.55, 0.66, 0.5, 0.74), "ink"),
    ],
    "balloon": [
        (E, (0.15, 0.0, 0.85, 0.7), "main"),
        (E, (0.38, 0.0, 0.62, 0.7), "dark"),
        (P, (0.3, 0.6, 0.42, 0.82, 0.58, 0.82, 0.7, 0.6), "light"),
        (R, (0.41, 0.84, 0.59, 1.0), "ink"),
    ],
    "castle": [
        (R, (0.05, 0.25, 0.3, 1.0), "main"),
        (R, (0.7, 0.25, 0.95, 1.0), "main"),
        (R, (0.28, 0.45, 0.72, 1.0), "dark"),
        (P, (0.02, 0.27, 0.175, 0.0, 0.33, 0.27), "light"),
        (P, (0.67, 0.27, 0.825, 0.0, 0.98, 0.27), "light"),
        (E, (0.38, 0.62, 0.62, 1.2), "ink"),
        (R, (0.12, 0.42, 0.22, 0.56), "glass"),
        (R, (0.78, 0.42, 0.88, 0.56), "glass"),
    ],
    "robot": [
        (R, (0.47, 0.0, 0.53, 0.14), "ink"),
        (R, (0.22, 0.12, 0.78, 0.46), "main"),
        (R, (0.15, 0.5, 0.85, 0.9), "dark"),
        (E, (0.3, 0.2, 0.44, 0.36), "glass"),
        (E, (0.56, 0.2, 0.7, 0.36), "glass"),
        (R, (0.34, 0.6, 0.66, 0.76), "light"),
        (R, (0.22, 0.9, 0.4, 1.0), "ink"),
        (R, (0.6, 0.9, 0.78, 1.0), "ink"),
    ],
    "cake": [
        (R, (0.1, 0.6, 0.9, 1.0), "main"),
        (R, (0.22, 0.34, 0.78, 0.62), "light"),
        (R, (0.1, 0.6, 0.9, 0.68), "dark"),
        (R, (0.47, 0.14, 0.53, 0.34), "glass"),
        (E, (0.45, 0.02, 0.55, 0.15), "flame"),
    ],
    "umbrella": [
        (R, (0.48, 0.1, 0.53, 0.92), "ink"),
        (P, (0.02, 0.55, 0.2, 0.2, 0.5, 0.06, 0.8, 0.2, 0.98, 0.55), "main"),
        (P, (0.35, 0.55, 0.5, 0.06, 0.65, 0.55), "dark"),
        (E, (0.36, 0.82, 0.53, 0.98), "ink"),
    ],
    "tree": [
        (R, (0.42, 0.6, 0.58, 1.0), "bark"),
        (E, (0.08, 0.1, 0.6, 0.66), "main"),
        (E, (0.4, 0.1, 0.92, 0.66), "dark"),
        (E, (0.25, 0.0, 0.75, 0.5), "light"),
    ],
    "mushroom": [
        (P, (0.38, 0.5, 0.62, 0.5, 0.68, 1.0, 0.32, 1.0), "glass"),
        (P, (0.02, 0.58, 0.14, 0.22, 0.5, 0.04, 0.86, 0.22, 0.98, 0.58), "main"),
        (E, (0.24, 0.26, 0.4, 0.42), "glass"),
        (E, (0.58, 0.2, 0.72, 0.34), "glass"),
    ],
}


class Thing(NamedTuple):
    """One drawn object."""

    kind: str
    colour: str


class Scene(NamedTuple):
    """What a picture shows."""

    place: str
    first: Thing
    """The larger, left of the centre when there is a second."""
    second: Thing | None


def random_scene(rng: random.Random) -> Scene:
    """Draw lots for a scene; every second one has two objects, of different kinds."""
    first, second = (Thing(kind, rng.choice(list(COLOURS))) for kind in rng.sample(list(THINGS), 2))
    return Scene(rng.choice(list(PLACES)), first, second if rng.random() < 0.5 else None)


def draw(scene: Scene, rng: random.Random, width: int = 480) -> Image.Image:
    """Paint a 16:9 picture of the scene, `width` pixels wide.

    The objects lie in the central square, which is what CLIP's preprocessing keeps.
    """
    width, height = width * 2, width * 9 // 8  # painted at twice the size, then reduced
    image = _background(scene.place, width, height, rng)
    horizon = PLACES[scene.place][4]
    if scene.second is None:
        spots = [(scene.first, rng.uniform(0.42, 0.58), rng.uniform(0.55, 0.72))]
    else:
        spots = [
            (scene.second, rng.uniform(0.62, 0.68), rng.uniform(0.34, 0.42)),
            (scene.first, rng.uniform(0.36, 0.43), rng.uniform(0.46, 0.56)),
        ]
    for thing, centre, size in spots:
        foot = height * min(0.97, max(horizon, 0.6) + rng.uniform(0.12, 0.26))
        if horizon == 1.0:  # things float in space
            foot = height * rng.uniform(0.75, 0.9)
        _place(image, thing, centre * width, foot, size * height, rng)
    image = image.resize((width // 2, height // 2), Image.Resampling.LANCZOS)
    return _painterly(image, rng)


def _background(place: str, width: int, height: int, rng: random.Random) -> Image.Image:
    top, low_sky, high_ground, bottom, horizon = PLACES[place]
    line = round(horizon * height)
    rows = [_mix(top, low_sky, y / max(1, line)) for y in range(line)]
    rows += [_mix(high_ground, bottom, y / (height - line)) for y in range(height - line)]
    column = np.array(rows, np.uint8)[:, None, :]
    image = Image.fromarray(np.repeat(column, width, axis=1))
    pen = ImageDraw.Draw(image)
    if place in ("night", "space"):
        for _ in range(90):
            x, y = rng.uniform(0, width), rng.uniform(0, line)
            size = rng.uniform(0.5, 2.5)
            pen.ellipse((x - size, y - size, x + size, y + size), fill="#fff6d8")
    if place == "city":
        for left in range(0, width, width // 12):
            roof = line - rng.uniform(0.15, 0.5) * height
            pen.rectangle(
                (left, roof, left + width // 14, line), fill=rng.choice(["#8793a0", "#6f7b88"])
            )
    if place == "forest":
        for _ in range(16):
            x, size = rng.uniform(0, width), rng.uniform(0.25, 0.5) * height
            points = [(x, line - size), (x - size / 4, line + 9), (x + size / 4, line + 9)]
            pen.polygon(points, fill=rng.choice(["#2f5a33", "#3c6f3f"]))
    if place in ("sea", "snow", "desert", "meadow"):
        for _ in range(24):
            x, y = rng.uniform(0, width), rng.uniform(line, height)
            half = rng.uniform(0.02, 0.07) * width
            colour = _mix(high_ground, "#ffffff", 0.35)
            pen.arc(
                (x - half, y - half / 5, x + half, y + half / 5), 180, 360, fill=colour, width=3
            )
    if place == "sunset":
        x, y, size = width * rng.uniform(0.3, 0.7), line, height * 0.16
        pen.pieslice((x - size, y - size, x + size, y + size), 180, 360, fill="#ffd36b")
    if place == "cave":
        for _ in range(14):
            x, length = rng.uniform(0, width), rng.uniform(0.1, 0.35) * height
            pen.polygon([(x - 22, 0), (x + 22, 0), (x, length)], fill="#1a1412")
    return image


def _place(
    image: Image.Image, thing: Thing, centre: float, foot: float, size: float, rng: random.Random
) -> None:
    """Draw a thing `size` pixels high that stands at (centre, foot)."""
    main = COLOURS[thing.colour]
    shades = {
        "main": _mix(main, main, 0),
        "dark": _mix(main, "#000000", 0.28),
        "light": _mix(main, "#ffffff", 0.4),
        "ink": (38, 34, 40),
        "glass": (236, 246, 250),
        "leaf": (62, 122, 55),
        "bark": (104, 72, 48),
        "flame": (255, 190, 70),
    }
    tile = Image.new("RGBA", (round(size), round(size)))
    pen = ImageDraw.Draw(tile)
    for shape, unit, shade in THINGS[thing.kind]:
        points = [value * size for value in unit]
        getattr(pen, shape)(points, fill=shades[shade], outline=(30, 26, 32), width=3)
    tile = tile.rotate(rng.uniform(-7, 7), Image.Resampling.BICUBIC, expand=True)
    corner = (round(centre - tile.width / 2), round(foot - tile.height))
    image.paste(tile, corner, tile)


def _painterly(image: Image.Image, rng: random.Random) -> Image.Image:
    """A little grain and softness, so that no two pictures share exact pixels."""
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 4, (image.height, image.width, 1))
    pixels = np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.6))


def _mix(first: str, second: str, share: float) -> tuple[int, int, int]:
    """The colour between two hex colours, `share` of the way to the second."""
    pairs = [(int(first[i : i + 2], 16), int(second[i : i + 2], 16)) for i in (1, 3, 5)]
    red, green, blue = (round(a + (b - a) * share) for a, b in pairs)
    return red, green, blue
