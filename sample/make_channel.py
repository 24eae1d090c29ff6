"""Draw the sample channel: `python -m thumbtune.sample.make_channel`.

It is a folder source like a creator's own: a manifest and 480x360 thumbnails with YouTube's
letterbox. The titles are written as a creator would, and the pictures share one look, both unlike
what the small CLIP was trained on; a few entries are odd or broken, as in real life.
"""

import argparse
import json
import random
import string
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from PIL import Image, ImageDraw

from thumbtune.sample import CHANNEL
from thumbtune.sample.scenes import Scene, Thing, draw, random_scene

VIDEOS = 280
SEED = 2024

# The channel's own words, which the pre-training captions hardly know.
COLOUR_WORDS = {
    "red": ("Scarlet", "RED"),
    "orange": ("Tangerine", "Orange"),
    "yellow": ("Golden", "Yellow"),
    "green": ("Emerald", "Green"),
    "blue": ("Sapphire", "BLUE"),
    "purple": ("Violet", "Purple"),
    "pink": ("Bubblegum", "Pink"),
    "white": ("Ivory", "White"),
}
PLACE_WORDS = {
    "sea": ("at the Beach", "on the Waves"),
    "meadow": ("on the Farm", "in the Fields"),
    "desert": ("in the Dunes", "in Extreme Heat"),
    "night": ("After Dark", "at Midnight"),
    "snow": ("in a Blizzard", "at Minus 30°"),
    "sunset": ("at Golden Hour", "at the End of the Day"),
    "space": ("in Zero Gravity", "Beyond Orbit"),
    "city": ("Downtown", "in New York"),
    "forest": ("in the Woods", "Off the Trail"),
    "cave": ("Underground", "Deep Below"),
}
ONE = (
    "I Built a {a} {x} {place}",
    "Can a {a} {x} Survive {place}?",
    "24 Hours with My {a} {x} {place}",
    "This {a} {x} {place} Changed EVERYTHING",
    "The Truth About the {a} {x} {place}",
    "Why Nobody Paints a {a} {x} {place}…",
)
TWO = (
    "{a} {x} vs {b} {y} {place}",
    "I Traded a {b} {y} for a {a} {x} {place}",
    "{a} {x} Meets {b} {y} {place} (Gone Wrong)",
    "Is a {a} {x} Better than a {b} {y} {place}?",
)
ENDINGS = ("", "", "", "", "", " 😱", " 🔥🔥", " | Ep. {n}", " #shorts no more", " – Día {n}")
LONG = (
    " (and What Happened Next Surprised Even the Neighbours, My Grandmother, Three Plumbers and "
    "the Whole Fire Brigade)"
)


def write_channel(folder: Path) -> None:
    """Write manifest.json and images/<id>.jpg; equal on every run."""
    rng = random.Random(SEED)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    manifest = []
    for number, (scene, title) in enumerate(scenes_and_titles(rng)):
        video_id = "".join(rng.choices(string.ascii_letters + string.digits + "-_", k=11))
        path = folder / "images" / f"{video_id}.jpg"
        thumbnail(scene, rng).save(path, quality=72)
        day = datetime(2020, 1, 3, 16) + timedelta(days=7 * number)
        is_short = number % 50 == 20
        manifest.append(
            {
                "id": video_id,
                "title": title,
                "image": f"images/{path.name}",
                "duration": "PT42S"
                if is_short
                else f"PT{rng.randint(4, 25)}M{rng.randint(0, 59)}S",
                "publishedAt": f"{day.isoformat()}Z",
            }
        )
    _break_two_pictures(folder, manifest)
    text = json.dumps(manifest[::-1], indent=1, ensure_ascii=False)  # newest first, as on YouTube
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")


def scenes_and_titles(rng: random.Random) -> Iterator[tuple[Scene, str]]:
    """Scenes with a creator's titles; a few are long, and some repeat an earlier title."""
    seen: dict[Scene, str] = {}
    for number in range(VIDEOS):
        scene = random_scene(rng)
        if number % 60 == 45:  # the same idea again, with a new picture and the very same title
            scene = rng.choice(list(seen))
        written = title(scene, number, rng) + (LONG if number % 70 == 33 else "")
        yield scene, seen.setdefault(scene, written)


def title(scene: Scene, number: int, rng: random.Random) -> str:
    """A creator's title for a scene."""
    second = scene.second or scene.first
    text = rng.choice(ONE if scene.second is None else TWO).format(
        a=rng.choice(COLOUR_WORDS[scene.first.colour]),
        x=_capital(scene.first),
        b=rng.choice(COLOUR_WORDS[second.colour]),
        y=_capital(second),
        place=rng.choice(PLACE_WORDS[scene.place]),
    )
    return text + rng.choice(ENDINGS).format(n=number)


def _capital(thing: Thing) -> str:
    return thing.kind.capitalize()


def thumbnail(scene: Scene, rng: random.Random) -> Image.Image:
    """The channel's look: a warm tint, a frame and a badge; then YouTube's black bars."""
    picture = draw(scene, rng)
    picture = Image.blend(picture, Image.new("RGB", picture.size, "#e8a05a"), 0.28)
    pen = ImageDraw.Draw(picture)
    width, height = picture.size
    pen.rectangle((0, 0, width - 1, height - 1), outline="#ffe45c", width=12)
    pen.ellipse((310, 190, 362, 242), fill="#c2185b", outline="white", width=4)
    pen.polygon([(328, 203), (328, 229), (350, 216)], fill="white")
    padded = Image.new("RGB", (480, 360))
    padded.paste(picture, (0, 45))
    return padded


def _break_two_pictures(folder: Path, manifest: list[dict[str, str]]) -> None:
    """One picture cut short and one missing, which the pipeline must drop with a reason."""
    cut, missing = (folder / manifest[place]["image"] for place in (60, 160))
    cut.write_bytes(cut.read_bytes()[:2000])
    missing.unlink()


def main() -> None:
    """Draw it where the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=CHANNEL)
    write_channel(parser.parse_args().output)


if __name__ == "__main__":
    main()
