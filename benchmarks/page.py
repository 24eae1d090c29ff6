"""How long does the page take to answer? `python benchmarks/page.py`, with Chromium installed

A training of the bundled channel, `thumbtune web` on it, and a browser that asks for 6 thumbnails
by 50 titles: for the first time, again as it is, and with one title changed. From the press of a
key until the grid stands in the page. Then what drives a fit, and the map, drawn and kept.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parent.parent
PICTURES = sorted((ROOT / "sample" / "channel" / "images").glob("*.jpg"))[:6]
THINGS = ("Boat", "Castle", "Robot", "Cake", "Balloon", "House", "Rocket", "Cat", "Tree", "Car")
PLACES = ("at the Beach", "in New York", "in the Woods", "at Midnight", "in a Blizzard")
TITLES = [f"I Built a {thing} {place}" for thing in THINGS for place in PLACES]
TIMES = 30
PAUSE = 1000
"""Milliseconds that a reader takes at least: meanwhile the last grid's picture to keep is drawn."""


@contextmanager
def served(workspace: str, port: int) -> Iterator[str]:
    """The address of the page, once it is there."""
    command = [sys.executable, "-m", "thumbtune.app.cli"]
    at = ["--workspace", workspace]
    subprocess.run([*command, "demo", *at], check=True, stdout=subprocess.DEVNULL)
    page = subprocess.Popen([*command, "web", "--port", str(port), *at], stdout=subprocess.PIPE)
    assert page.stdout
    page.stdout.readline()
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        page.terminate()
        page.wait(30)


def ask(page: Page, titles: list[str]) -> float:
    """Seconds from the question until its grid is there."""
    page.get_by_label("Title ideas").fill("\n".join(titles))
    page.wait_for_timeout(PAUSE)
    before = page.locator("#ranking .answer").evaluate_all("all => all.map(one => one.id)")
    started = time.perf_counter()
    page.keyboard.press("Control+Enter")
    page.wait_for_function(
        "([before, rows]) => { const one = document.querySelector('#ranking .answer');"
        " return one && !before.includes(one.id)"
        " && one.querySelectorAll('.fits tbody tr').length === rows }",
        arg=[before, len(titles)],
        polling=5,
    )
    return time.perf_counter() - started


def seen(page: Page, do: Callable[[], None], what: str) -> float:
    """Seconds until something is visible."""
    started = time.perf_counter()
    do()
    page.locator(what).first.wait_for(timeout=600_000)
    return time.perf_counter() - started


def told(seconds: list[float]) -> str:
    """The median with its 95 % interval over resamples."""
    rng, values = np.random.default_rng(0), np.array(seconds)
    medians = np.median(rng.choice(values, (4000, len(values))), axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return f"{np.median(values):.2f} s ({low:.2f}–{high:.2f}, {len(values)} times)"


def measure(page: Page, times: int) -> None:
    """Print a line for each question."""
    page.locator("#thumbnail input[type=file]").set_input_files(PICTURES)
    page.locator("#thumbnail .thumbnail-item").nth(5).wait_for()
    print("| question | from the key to the answer |\n| --- | --- |")
    print(f"| 6 x 50, for the first time | {ask(page, TITLES):.2f} s |", flush=True)
    print(f"| again, as it is | {told([ask(page, TITLES) for _ in range(times)])} |", flush=True)
    changed = [ask(page, [*TITLES[:-1], f"Idea {number}"]) for number in range(times)]
    print(f"| with one title new | {told(changed)} |", flush=True)
    page.locator("#thumbnail").get_by_label("Clear").click()
    page.locator("#thumbnail input[type=file]").set_input_files(PICTURES[0])
    page.get_by_role("button", name="Match").click()
    page.get_by_text("Details").first.click()
    button = page.get_by_role("button", name="What drives this fit?").first
    print(f"| what drives a fit | {seen(page, button.click, '#why img'):.2f} s |")
    tab = page.get_by_role("tab", name="Map")
    print(f"| the map, drawn | {seen(page, tab.click, '#map img'):.2f} s |")
    page.reload()
    page.get_by_role("heading", name="sample").wait_for()
    print(f"| the map, kept | {seen(page, tab.click, '#map img'):.2f} s |")


def main() -> None:
    """Read the arguments, and print the table as markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three times, to see that it runs")
    parser.add_argument("--port", type=int, default=7868)
    asked = parser.parse_args()
    path = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    with (
        tempfile.TemporaryDirectory() as workspace,
        served(workspace, asked.port) as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address)
        page.get_by_role("heading", name="sample").wait_for(timeout=60_000)
        measure(page, 3 if asked.quick else TIMES)
        browser.close()


if __name__ == "__main__":
    main()
