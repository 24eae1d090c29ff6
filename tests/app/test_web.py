"""The page of `thumbtune web`, in a browser, on the bundled channel."""

import csv
import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.browser import chromium
from tests.data.test_thumbnails import encoded, picture
from tests.forks import Script
from tests.prefect_server import wait_until
from tests.reporting.test_report import NASTY, Tags
from tests.reverse_proxy import ReverseProxy
from tests.small_channel import make_examples
from thumbtune.app.address import AddressError, host_names
from thumbtune.app.in_use import Champion, QuestionError
from thumbtune.app.match_tab import answered, choose, read_titles, side_by_side
from thumbtune.app.parts import html, share_in_words, told
from thumbtune.app.search_tab import found
from thumbtune.app.web import serve
from thumbtune.channel.registry import DamagedRecordError, Registry, Version
from thumbtune.data.thumbnails import Example, load_image
from thumbtune.flows.train_flow import train
from thumbtune.store.workspace import Workspace
from thumbtune.use.indexing import Entry, NoIndexError, channel_place, index_channel
from thumbtune.use.matching import Fit, Matcher, examples_of
from thumbtune.use.verdicts import answer_of, in_words

pytestmark = pytest.mark.usefixtures("prefect_harness")

OTHERS = ["Golden Rocket After Dark", "24 Hours with My Golden Mushroom", "I Built a House"]

expect.set_options(timeout=30_000)


class Site:
    """The page as `thumbtune web` serves it, and the channel behind it."""

    def __init__(
        self, workspace: Workspace, temporary: Path, *options: str, password: str = ""
    ) -> None:
        self.options = options
        self.environment = {"THUMBTUNE_WEB_PASSWORD": password} if password else {}
        self.workspace = workspace
        self.registry = Registry(workspace, "sample", None)
        self.temporary = temporary
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.process = self.start()

    def start(self) -> Script:
        """`thumbtune web` on this site's port."""
        options = ["web", "--source=sample", *self.options, f"--port={self.port}"]
        return Script(
            "thumbtune/app/cli.py",
            [*options, f"--workspace={self.workspace.root}"],
            {**os.environ, "TMPDIR": str(self.temporary), **self.environment},
        )

    def wait_until_ready(self) -> None:
        """It says its address then."""
        wait_until(lambda: "\n" in self.process.stdout, tell=lambda: str(self.process.streams))
        assert self.url in self.process.stdout

    def stop(self) -> int:
        """Stop as a supervisor does; the exit code."""
        self.process.terminate()
        return self.process.wait(30).returncode

    def rows(self) -> list[Example]:
        """Videos of the channel."""
        return self.workspace.read_table(self.registry.versions()[-1].examples, Example)

    def row(self, card: Locator) -> Example:
        """The video of a card of a hit."""
        [id_] = {button.get_attribute("data-id") for button in card.locator("[data-act]").all()}
        return next(row for row in self.rows() if row.id == id_)

    def test_rows(self) -> list[Example]:
        """Those that the model has not seen."""
        return [row for row in self.rows() if row.split == "test"]

    def fits(self, image: Image.Image, titles: list[str], untouched: bool = False) -> list[Fit]:
        """What the champion, or the untouched model, says of titles."""
        champion = self.registry.champion()
        assert champion
        return Matcher.of_version(self.workspace, champion, untouched).rank_titles(image, titles)

    def nearest(self, embed: Callable[[Matcher], Any], top: int) -> list[tuple[str, str]]:
        """Title, and what is told below it, of the pictures nearest to a vector of the champion."""
        champion = self.registry.champion()
        assert champion
        matcher = Matcher.of_version(self.workspace, champion)
        rows = self.workspace.read_table(champion.examples, Example)
        vectors = matcher.embed_images([load_image(self.workspace, row) for row in rows])
        cosines = (vectors @ embed(matcher)[0]).tolist()
        titles = [(row.title, (row.published_at or "")[:10]) for row in rows]
        best = sorted(zip(cosines, titles, strict=True), reverse=True)
        return [
            (title, f"{date} · {share_in_words(matcher.percentile(cosine))} of your own pairs · ")
            for cosine, (title, date) in best[:top]
        ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two versions of the bundled channel; the second is the champion."""
    workspace = Workspace.open(tmp_path_factory.mktemp("web") / "workspace")
    options: dict[str, Any] = {
        "source": "sample",
        "model": "sample",
        "workspace": workspace.root,
        "negatives": {"text_model": "sample"},
        "evaluation": {"method": "holdout"},
    }
    for epochs in (1, 6):
        train(**options, training={"recipe": "given", "epochs": epochs, "learning_rate": 0.001})
    site = Site(workspace, tmp_path_factory.mktemp("temporary"))
    site.wait_until_ready()
    yield site
    site.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def visitor(browser: Browser) -> Iterator[BrowserContext]:
    """Who opens every page: the browser has kept the page's scripts, as compiled."""
    with browser.new_context(viewport={"width": 1200, "height": 900}) as context:
        yield context


@pytest.fixture
def page(site: Site, visitor: BrowserContext) -> Iterator[Page]:
    """The page, newly opened; it may not raise an error of its own nor ask another host."""
    page = visitor.new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(f"dialog {dialog.message}"))
    page.goto(site.url)
    expect(page.get_by_role("heading", name="sample")).to_be_visible()
    yield page
    page.close()
    assert errors == []
    assert [url for url in asked if not url.startswith((site.url, "data:", "blob:"))] == []


def give_pictures(page: Page, *pictures: Path) -> None:
    """Drop thumbnails beside those that are there."""
    there = thumbnails_in(page).count()
    with page.expect_response(re.compile("/upload")):
        page.locator("#thumbnail input[type=file]").set_input_files(pictures)
    expect(thumbnails_in(page)).to_have_count(there + len(pictures))


def wait_until_kept(page: Page, pictures: int) -> None:
    """Until the tab has written down that so many pictures stand in the form."""
    page.wait_for_function(
        """pictures => Object.entries(sessionStorage).some(([key, value]) =>
             key.endsWith(" asked") && (JSON.parse(value)[1] ?? []).length === pictures)""",
        arg=pictures,
    )


def thumbnails_in(page: Page) -> Locator:
    return page.locator("#thumbnail .thumbnail-item")


def give_picture_to_search(page: Page, picture: Path) -> None:
    with page.expect_response(re.compile("/upload")):
        page.locator("#picture input[type=file]").set_input_files(picture)
    expect(page.locator("#picture").get_by_label("Remove Image")).to_be_visible()


def match(page: Page, titles: list[str]) -> Locator:
    """Ask for the ranking; its rows."""
    page.get_by_label("Title ideas").fill("\n".join(titles))
    page.get_by_role("button", name="Match").click()
    rows = page.locator(".thumbtune ol > li")
    expect(rows).to_have_count(len(titles))
    return rows


def words_of(fit: Fit) -> str:
    assert fit.percentile is not None
    return f"{share_in_words(fit.percentile)} of this channel’s own pairs"


def assert_shows(rows: Locator, fine_tuned: list[Fit], untouched: list[Fit]) -> None:
    """The rows show both models' answers in the order of the fine-tuned one."""
    expect(rows.get_by_role("heading")).to_have_text([fit.title for fit in fine_tuned])
    places = {fit.title: place for place, fit in enumerate(untouched, 1)}
    fits = {fit.title: fit for fit in untouched}
    for row, fit in zip(rows.all(), fine_tuned, strict=True):
        expect(row.locator(".words")).to_have_text(in_words(fit.percentile or 0))
        row.get_by_text("Details").click()
        was = fits[fit.title]
        expect(row).to_contain_text(f"Fine-tuned{words_of(fit)}", use_inner_text=False)
        expect(row).to_contain_text(f"Untouched, choice {places[fit.title]}{words_of(was)}")
        expect(row.locator("span").filter(has_text="cosine")).to_have_text(
            [f"cosine {fit.cosine:.2f}", f"cosine {was.cosine:.2f}"]
        )


@pytest.mark.compatibility
def test_titles_are_ranked_for_an_uploaded_thumbnail_by_both_models(site: Site, page: Page) -> None:
    row = site.test_rows()[0]
    titles = [*OTHERS, row.title]
    give_pictures(page, site.workspace.root / row.image)
    image = load_image(site.workspace, row)
    fine_tuned = site.fits(image, titles)
    assert fine_tuned[0].title == row.title
    assert_shows(match(page, titles), fine_tuned, site.fits(image, titles, untouched=True))


def test_a_thumbnail_of_the_channel_can_be_chosen_and_brings_its_title(
    site: Site, page: Page
) -> None:
    row = site.test_rows()[1]
    page.get_by_text("Or choose one of the channel’s").click()
    page.locator("#picker").get_by_alt_text(row.title).click()
    expect(page.get_by_label("Title ideas")).to_have_value(row.title)
    expect(thumbnails_in(page)).to_have_count(1)
    image = load_image(site.workspace, row)
    titles = [row.title, *OTHERS]
    rows = match(page, titles)
    assert_shows(rows, site.fits(image, titles), site.fits(image, titles, untouched=True))


def search(page: Page, count: int) -> Locator:
    """Ask for thumbnails; the cards that were found."""
    page.get_by_label("How many").first.fill(str(count))
    page.get_by_role("button", name="Search", exact=True).click()
    cards = page.locator("figure")
    expect(cards).to_have_count(count)
    return cards


@pytest.mark.compatibility
def test_words_find_the_thumbnails_nearest_to_them(site: Site, page: Page) -> None:
    row = site.test_rows()[0]
    page.get_by_role("tab", name="Search").click()
    page.get_by_label("Words").fill(row.title)
    cards = search(page, 5)
    expected = site.nearest(lambda matcher: matcher.embed_titles([row.title]), 5)
    assert expected[0][0] == row.title
    expect(cards.locator(".title")).to_have_text([title for title, _ in expected])
    below = cards.locator("small").all_text_contents()
    for text, (_, expected_text) in zip(below, expected, strict=True):
        far = "far off · " in text  # of such a one no percentile is told
        assert text.startswith(f"far off · {expected_text[:12]}" if far else expected_text)
    sizes = cards.locator("img").evaluate_all("pictures => pictures.map(p => p.naturalWidth)")
    assert min(sizes) > 100


def test_a_picture_finds_itself_first(site: Site, page: Page) -> None:
    row = site.test_rows()[2]
    page.get_by_role("tab", name="Search").click()
    page.get_by_text("Or search by a picture").click()
    give_picture_to_search(page, site.workspace.root / row.image)
    first = search(page, 3).first
    expect(first).to_contain_text(row.title)
    expect(first).to_contain_text("cosine 1.00")


def found_first(page: Page, words: str) -> tuple[str, Locator]:
    """Search; the title of the first hit, and its card."""
    page.get_by_role("tab", name="Search").click()
    page.get_by_label("Words").fill(words)
    first = search(page, 4).first
    return first.locator(".title").inner_text(), first


def test_a_hit_is_enlarged_and_leads_to_others_like_it(site: Site, page: Page) -> None:
    title, first = found_first(page, site.test_rows()[0].title)
    first.get_by_role("button", name="Enlarge").click()
    alone = page.locator("#large:popover-open")
    expect(alone).to_contain_text(title)
    width = alone.locator("img").evaluate("picture => picture.naturalWidth")
    row = site.row(first)
    assert width == load_image(site.workspace, row).width
    alone.get_by_role("button", name="More like this").click()
    expect(alone).to_have_count(0)
    expected = site.nearest(
        lambda matcher: matcher.embed_images([load_image(site.workspace, row)]), 4
    )
    titles = page.locator("#found .title")
    expect(titles).to_have_text([title for title, _ in expected])
    second = titles.nth(1).inner_text()
    page.locator("#found figure").nth(1).get_by_role("button", name="More like this").click()
    expect(titles.first).to_have_text(second)


def test_a_hit_goes_to_the_other_tab_to_be_matched(site: Site, page: Page) -> None:
    title, first = found_first(page, site.test_rows()[1].title)
    first.get_by_role("button", name="Use in Match").click()
    expect(page.get_by_role("tab", name="Match")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_label("Title ideas")).to_have_value(title)
    expect(thumbnails_in(page)).to_have_count(1)
    row = site.row(first)
    image = load_image(site.workspace, row)
    rows = match(page, [title, *OTHERS])
    assert_shows(
        rows, site.fits(image, [title, *OTHERS]), site.fits(image, [title, *OTHERS], untouched=True)
    )


def test_what_drives_a_fit_is_shown_for_the_title_that_was_asked_about(
    site: Site, page: Page
) -> None:
    row = site.test_rows()[0]
    give_pictures(page, site.workspace.root / row.image)
    titles = [row.title, "A <b>bold</b> boat"]
    rows = match(page, titles)
    for title in titles:
        asked = rows.filter(has=page.get_by_role("heading", name=title, exact=True))
        asked.get_by_text("Details").click()
        asked.get_by_role("button", name="What drives this fit?").click()
        expect(page.locator("#why .driven span")).to_have_text(title.split())
    expect(page.get_by_alt_text("The thumbnail, bright where it drives the fit")).to_be_visible()
    match(page, [*titles, "Another"])
    expect(page.locator("#why .driven")).to_have_count(0)


def test_the_map_shows_all_thumbnails_and_a_press_on_one_shows_it_large(
    site: Site, page: Page
) -> None:
    page.get_by_role("tab", name="Map").click()
    drawn = page.locator("#map img")
    expect(drawn).to_have_attribute("alt", re.compile(f"^{len(site.rows())} thumbnails, "))
    box = drawn.bounding_box()
    kept = json.loads((site.workspace.root / "maps" / f"{site.registry.name}.json").read_text())
    spot = kept["spots"][7]
    assert box
    drawn.click(position={"x": spot["x"] * box["width"], "y": spot["y"] * box["height"]})
    expect(page.locator("#large:popover-open")).to_contain_text(spot["title"])
    page.keyboard.press("Escape")
    group = page.locator("#map .groups button").first
    name = group.inner_text().split("·")[0].strip()
    group.click()
    cluster = next(each for each in kept["clusters"] if each["name"] == name)
    expected = next(each["title"] for each in kept["spots"] if each["id"] == cluster["ids"][0])
    expect(page.locator("#found .title").first).to_have_text(expected)


def test_versions_are_shown_with_what_changed_and_one_can_be_made_the_champion(
    site: Site, page: Page
) -> None:
    page.get_by_role("tab", name="Versions").click()
    sections = page.locator("#versions section")
    expect(sections).to_have_count(2)
    second, first = sections.all()
    expect(second).to_contain_text("Version 2, the champion")
    expect(second).to_contain_text("training.epochs 6 (was 1)")
    for number, shown in ((2, second), (1, first)):
        version = site.registry.version(number)
        low, high = version.intervals["Recall@1"]
        told = f"Recall@1 {version.metrics['Recall@1']:.3f} ({low:.2f}–{high:.2f})"
        expect(shown).to_contain_text(told)
    try:
        first.get_by_role("button", name="Roll back to it").click()
        expect(page.get_by_text("Version 1 of 2 is the champion.")).to_be_visible()
        expect(page.get_by_role("button", name="Make it the champion")).to_be_visible()
        champion = site.registry.champion()
        assert champion
        assert champion.number == 1
        assert site.registry.decisions()[-1].why == "chosen by hand on the page"
    finally:
        site.registry.roll_back(2, "after the test")


def test_the_place_for_pictures_tells_that_it_is_one_whenever_it_is_empty(
    site: Site, page: Page
) -> None:
    place = page.locator("#thumbnail")
    expect(place.get_by_text("Click to Upload")).to_be_visible()
    give_pictures(page, site.workspace.root / site.test_rows()[0].image)
    wait_until_kept(page, 1)
    place.get_by_label("Clear").click()
    expect(place.get_by_text("Click to Upload")).to_be_visible()
    wait_until_kept(page, 0)
    page.reload()
    expect(page.get_by_label("Title ideas")).to_be_visible()
    expect(place.get_by_text("Click to Upload")).to_be_visible()


def test_a_reload_keeps_what_is_asked(site: Site, page: Page) -> None:
    give_pictures(page, *(site.workspace.root / row.image for row in site.test_rows()[:2]))
    page.get_by_label("Title ideas").fill("One\nTwo")
    page.get_by_role("tab", name="Search").click()
    page.get_by_label("Words").fill("a robot")
    page.reload()
    expect(page.get_by_label("Title ideas")).to_have_value("One\nTwo")
    expect(thumbnails_in(page)).to_have_count(2)
    grid_of(page, ["One", "Two", "Three"])
    page.get_by_role("tab", name="Search").click()
    expect(page.get_by_label("Words")).to_have_value("a robot")


def test_the_picker_is_one_stop_of_the_tab_key_and_arrows_go_through_it(
    site: Site, page: Page
) -> None:
    page.get_by_text("Or choose one of the channel’s").click()
    items = page.locator("#picker .thumbnail-item")
    expect(items.nth(4).locator("img")).to_be_visible()
    stops = "items => items.filter(item => item.tabIndex === 0).length"
    assert items.evaluate_all(stops) == 1
    items.first.focus()
    for key, place in (("ArrowRight", 1), ("ArrowDown", 4), ("ArrowLeft", 3), ("Home", 0)):
        page.keyboard.press(key)
        expect(items.nth(place)).to_be_focused()
        assert items.evaluate_all(stops) == 1
    page.keyboard.press("Enter")
    expect(thumbnails_in(page)).to_have_count(1)


@pytest.mark.whole
def test_twenty_people_at_once_each_get_their_own_answer(site: Site, browser: Browser) -> None:
    row, count = site.test_rows()[0], 20
    people = [browser.new_page() for _ in range(count)]
    for page in people:
        page.goto(site.url)
    for number, page in enumerate(people):
        give_pictures(page, site.workspace.root / row.image)
        page.get_by_label("Title ideas").fill(f"Idea {number}\n{row.title}")
    for page in people:
        page.get_by_role("button", name="Match").click()
    for number, page in enumerate(people):
        expect(page.get_by_role("heading", name=f"Idea {number}", exact=True)).to_be_visible()
        expect(page.locator(".thumbtune ol > li")).to_have_count(2)
        expect(page.locator(".toast-body")).to_have_count(0)
        page.close()


def test_a_search_wants_words_or_a_picture(site: Site, page: Page) -> None:
    page.get_by_role("tab", name="Search").click()
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Type words, or give a picture.")
    page.get_by_text("Or search by a picture").click()
    give_picture_to_search(page, site.workspace.root / site.test_rows()[0].image)
    page.get_by_label("Words").fill("a robot")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Clear one of them.")


def test_the_report_of_the_champion_is_shown_and_runs_no_script(site: Site, page: Page) -> None:
    page.get_by_role("tab", name="Report").click()
    frame = page.frame_locator("iframe")
    expect(frame.get_by_role("heading", name="CLIP, adapted to the sample channel")).to_be_visible()
    expect(frame.get_by_text("Worst misses on the")).to_be_visible()
    sandbox = page.locator("iframe").get_attribute("sandbox") or ""
    assert "allow-scripts" not in sandbox
    assert "allow-same-origin" not in sandbox
    decided = site.registry.decision_on(2)
    assert decided
    verdict = f"decided on {decided.at:%Y-%m-%d}: {decided.why.replace('`', '')}."
    expect(frame.get_by_text("Version 2, ")).to_contain_text(verdict)
    frame.get_by_role("link", name="All metrics").click()
    expect(frame.get_by_role("heading", name="All metrics")).to_be_in_viewport()
    with page.expect_download() as taken:
        frame.get_by_role("link", name="What it answered for each video").click()
    lines = list(csv.DictReader(Path(taken.value.path()).read_text().splitlines()))
    assert {line["video_id"] for line in lines} == {row.id for row in site.test_rows()}


def test_a_promotion_shows_without_a_restart(site: Site, page: Page) -> None:
    expect(page.get_by_text("Version 2 of 2")).to_be_visible()
    row = site.test_rows()[0]
    give_pictures(page, site.workspace.root / row.image)
    try:
        site.registry.roll_back(1, "for the test")
        rows = match(page, [row.title])
        [fit] = site.fits(load_image(site.workspace, row), [row.title])
        expect(rows).to_contain_text(f"cosine {fit.cosine:.2f}")
        page.reload()
        expect(page.get_by_text("Version 1 of 2")).to_be_visible()
    finally:
        site.registry.roll_back(2, "after the test")


def test_without_a_champion_the_page_says_how_to_get_one(site: Site, page: Page) -> None:
    decisions = site.workspace.root / site.registry.path / "decisions"
    aside = decisions.rename(decisions.with_name("aside"))
    try:
        page.reload()
        mend = "`thumbtune rollback NUMBER` makes one the champion."
        expect(page.locator(".problem")).to_contain_text(mend)
        page.get_by_text("Or choose one of the channel’s").click()
        expect(page.locator(".toast-body")).to_contain_text(mend)
        page.get_by_role("tab", name="Report").click()
        expect(page.get_by_role("tabpanel").locator(".problem")).to_contain_text(mend)
    finally:
        aside.rename(decisions)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n  \n", "There is no title yet. Type title ideas, one a line."),
        ("\n".join(map(str, range(51))), "51 titles; 50 can be matched at a time. Remove some"),
        ("fine\n" + "w" * 201, "Title 2 has 201 characters; 200 is the most"),
    ],
)
def test_titles_that_cannot_be_ranked_are_answered_with_the_mend(
    site: Site, page: Page, text: str, message: str
) -> None:
    give_pictures(page, site.workspace.root / site.test_rows()[0].image)
    page.get_by_label("Title ideas").fill(text)
    page.get_by_role("button", name="Match").click()
    expect(page.get_by_role("alert")).to_contain_text(message)


def test_a_missing_thumbnail_is_asked_for(page: Page) -> None:
    page.get_by_label("Title ideas").fill("A title")
    page.get_by_role("button", name="Match").click()
    expect(page.get_by_role("alert")).to_contain_text("There is no thumbnail yet.")


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("text.jpg", None, "not a JPEG, PNG, WebP or GIF picture"),
        ("drawing.svg", None, "not a JPEG, PNG, WebP or GIF picture"),
        ("tiny.png", (8, 8), "smaller than 32 pixels"),
        ("huge.png", (12_000, 9000), "more than 20 megapixels"),
    ],
)
def test_a_picture_of_no_use_is_answered_with_the_mend_as_soon_as_it_is_given(
    page: Page, tmp_path: Path, name: str, size: tuple[int, int] | None, message: str
) -> None:
    picture = tmp_path / name
    if size:
        Image.new("1", size).save(picture)
    else:
        picture.write_text(
            "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
        )
    give_pictures(page, picture)
    expect(page.get_by_role("alert")).to_contain_text(message)
    expect(page.get_by_role("alert")).to_contain_text("Give a JPEG, PNG, WebP or GIF of at most")
    page.locator("#thumbnail").get_by_label("Clear").click()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_of_several_pictures_the_one_of_no_use_is_named(
    site: Site, page: Page, tmp_path: Path
) -> None:
    wrong = tmp_path / "notes.jpg"
    wrong.write_text("no picture")
    give_pictures(page, site.workspace.root / site.test_rows()[0].image, wrong)
    expect(page.get_by_role("alert")).to_contain_text("Thumbnail 2, notes.jpg: ")


def test_a_picture_of_more_than_64_megabytes_is_not_taken(page: Page, tmp_path: Path) -> None:
    picture = tmp_path / "large.jpg"
    picture.write_bytes(bytes(64 * 2**20 + 1))
    page.locator("#thumbnail input[type=file]").set_input_files(picture)
    expect(page.get_by_text("exceed the maximum allowed size of 64")).to_be_visible()


def test_an_answer_is_greyed_as_soon_as_something_else_is_asked(site: Site, page: Page) -> None:
    first, second = site.test_rows()[:2]
    give_pictures(page, site.workspace.root / first.image)
    match(page, [first.title, *OTHERS])
    answer = page.locator("#ranking .answer")
    expect(answer.get_by_alt_text("The thumbnail that this answer is about")).to_be_visible()
    notice = page.get_by_text("This is about what was there before.")
    expect(notice).to_be_hidden()
    give_pictures(page, site.workspace.root / second.image)
    expect(notice).to_be_visible()
    page.locator("#thumbnail").get_by_label("Delete image").last.click()
    match(page, [first.title, *OTHERS])
    expect(notice).to_be_hidden()  # though the answer is the same again
    page.get_by_label("Title ideas").fill(f"{first.title}\nAnother")
    expect(notice).to_be_visible()


def test_what_the_picker_filled_in_the_picker_replaces_and_what_was_typed_stays(
    site: Site, page: Page
) -> None:
    first, second, third = site.test_rows()[:3]
    page.get_by_text("Or choose one of the channel’s").click()
    titles, choices = page.get_by_label("Title ideas"), page.locator("#picker")
    for row in (first, second):
        choices.get_by_alt_text(row.title).first.click()
        expect(titles).to_have_value(row.title)
        expect(thumbnails_in(page)).to_have_count(1)
    titles.fill("My own idea")
    give_pictures(page, site.workspace.root / first.image)
    choices.get_by_alt_text(third.title).first.click()
    expect(thumbnails_in(page)).to_have_count(2)  # the one that was given stays
    expect(titles).to_have_value("My own idea")


def test_one_click_shows_what_the_page_does(site: Site, page: Page) -> None:
    page.get_by_role("button", name="Show me an example").click()
    rows = page.locator(".thumbtune ol > li")
    expect(rows).to_have_count(3)
    titles = page.get_by_label("Title ideas").input_value().splitlines()
    assert sorted(rows.get_by_role("heading").all_text_contents()) == sorted(titles)


def test_where_no_title_fits_none_is_marked(site: Site, page: Page) -> None:
    row = site.test_rows()[0]
    give_pictures(page, site.workspace.root / row.image)
    others = list({each.title for each in site.test_rows()})
    fits = site.fits(load_image(site.workspace, row), others)
    match(page, [fit.title for fit in fits[-2:]])
    expect(page.locator(".says")).to_have_text("None of these titles describes this picture.")
    expect(page.locator("li.best")).to_have_count(0)


def test_what_the_channel_has_used_before_is_told(site: Site, page: Page, tmp_path: Path) -> None:
    row = site.test_rows()[0]
    again = tmp_path / "again.jpg"
    with Image.open(site.workspace.root / row.image) as whole:
        whole.convert("RGB").resize((480, 360)).save(again, quality=60)
    give_pictures(page, again)
    match(page, [row.title.upper(), "A title that nobody has used"])
    expect(page.get_by_text("You have used this title:")).to_have_count(1)
    expect(page.get_by_role("heading", name="You have used this thumbnail")).to_be_visible()
    first = page.locator("#ranking figure").first
    expect(first).to_contain_text(row.title)
    expect(first).to_contain_text(f"{(row.published_at or '')[:10]} nearly the same")
    new = tmp_path / "new.png"
    Image.effect_noise((640, 360), 90).save(new)
    page.locator("#thumbnail").get_by_label("Clear").click()
    give_pictures(page, new)
    match(page, ["A title"])
    expect(page.get_by_role("heading", name="Your thumbnails that are most like")).to_be_visible()
    expect(page.get_by_text("nearly the same")).to_have_count(0)


def grid_of(page: Page, titles: list[str]) -> Locator:
    """Ask for the grid, by the keyboard; its rows."""
    page.get_by_label("Title ideas").fill("\n".join(titles))
    page.keyboard.press("Control+Enter")
    rows = page.locator("#ranking .fits tbody tr")
    expect(rows).to_have_count(len(titles))
    return rows


def test_several_thumbnails_are_held_against_all_titles(site: Site, page: Page) -> None:
    shown = site.test_rows()[:3]
    titles = [row.title for row in shown] + OTHERS
    give_pictures(page, *(site.workspace.root / row.image for row in shown[:2]))
    give_pictures(page, site.workspace.root / shown[2].image)
    rows = grid_of(page, titles)
    images = [load_image(site.workspace, row) for row in shown]
    fits = [{fit.title: fit for fit in site.fits(image, titles)} for image in images]
    for row in rows.all():
        title = row.get_by_role("rowheader").inner_text()
        figures = [figure_in(cell) for cell in row.locator("td > button").all_text_contents()]
        expected = [fit[title].percentile for fit in fits]
        assert figures == pytest.approx(expected, abs=STEP)
    pairs = [(fit.cosine, n, title) for n, of in enumerate(fits, 1) for title, fit in of.items()]
    _, place, title = max(pairs)
    says = page.locator("#ranking .says").inner_text()
    assert says.startswith("Too close to call") or f"thumbnail {place} and “{title}”" in says
    starred = page.locator("#ranking td.ahead > button")
    expect(starred.first).to_contain_text("★")


STEP = 3
"""Percent: what one of the channel's pairs is, of which the shown one itself may be one."""


def figure_in(cell: str) -> int:
    [figure] = re.findall(r"\d+", cell)
    return int(figure)


def test_a_pair_is_shown_as_in_a_feed_and_the_grid_can_be_taken_along(
    site: Site, page: Page, tmp_path: Path
) -> None:
    shown = site.test_rows()[:2]
    give_pictures(page, *(site.workspace.root / row.image for row in shown))
    titles = [shown[0].title, "=HYPERLINK(1)", "w" * 150]
    grid_of(page, titles)
    pair = page.locator("#ranking .pair:popover-open")
    thumbnails = page.locator("#ranking thead img")
    for row, column in product(range(len(titles)), range(len(shown))):
        figure = page.locator("#ranking tbody tr").nth(row).locator("button").nth(column)
        figure.click()
        title = page.locator("#ranking tbody th").nth(row).inner_text()
        expect(pair.locator(".feed b")).to_have_text([title] * 4)
        expect(pair.locator(".feed b").first).to_be_visible()
        source = thumbnails.nth(column).get_attribute("src")
        backgrounds = pair.locator(".shot").evaluate_all(
            "all => all.map(e => e.style.backgroundImage)"
        )
        assert len(backgrounds) == 4
        assert all(source and source in background for background in backgrounds)
        expect(pair).to_contain_text(f"Title {row + 1}, thumbnail {column + 1}: ")
        expect(pair).to_contain_text("of this channel’s own pairs · cosine ")
        pair.get_by_role("button", name="Close").click()
        expect(pair).to_have_count(0)
    files = {}
    for name in ("CSV", "PNG"):
        with page.expect_download() as taken:
            page.get_by_role("link", name=name).click()
        files[name] = tmp_path / name
        taken.value.save_as(files[name])
    lines = list(csv.DictReader(files["CSV"].read_text().splitlines()))
    assert {line["title"] for line in lines} == {titles[0], "'=HYPERLINK(1)", titles[2]}
    assert {line["thumbnail"] for line in lines} == {"thumbnail 1", "thumbnail 2"}
    with Image.open(files["PNG"]) as drawn:
        assert drawn.format == "PNG"


def test_earlier_answers_stay_in_this_browser_until_they_are_forgotten(
    site: Site, page: Page
) -> None:
    row = site.test_rows()[0]
    give_pictures(page, site.workspace.root / row.image)
    title = "<b>bold</b> <img src=x onerror=alert(1)>"
    match(page, [title])
    page.reload()
    page.get_by_text("Earlier answers").click()
    page.locator("#earlier-answers button").first.click()
    again = page.locator("#earlier-answer")
    expect(again.get_by_role("heading").first).to_have_text(title)
    page.get_by_role("button", name="Close", exact=True).click()
    page.get_by_role("button", name="Forget them").click()
    page.reload()
    expect(page.get_by_text("Earlier answers")).to_be_hidden()


def test_what_the_header_says_of_the_videos_adds_up(site: Site, page: Page) -> None:
    champion = site.registry.champion()
    assert champion
    rows, learned = champion.examples.rows, len(champion.learned_from)
    told = f"It has learned from {learned} of the channel’s {rows} videos."
    expect(page.locator(".thumbtune").first).to_contain_text(told)
    give_pictures(page, site.workspace.root / site.test_rows()[0].image)
    match(page, OTHERS)
    expect(page.locator("#ranking")).to_contain_text(f"Held against {rows - learned} pairs")


def test_a_title_with_html_or_a_template_is_shown_as_text(site: Site, page: Page) -> None:
    titles = [
        "<img src=x onerror=alert(1)>",
        "<script>alert(2)</script>",
        "${alert(3)} `${alert(4)}`",
        "{{value}} {{#each value}}",
        "</h2></li></ol><b>bold</b> & &amp; \\ \\u0041",
    ]
    give_pictures(page, site.workspace.root / site.test_rows()[0].image)
    rows = match(page, titles)
    assert sorted(rows.get_by_role("heading").all_text_contents()) == sorted(titles)


NOT_OURS = re.compile(r'^<button class="icon-button [^>]*aria-label="Click to Upload"')
"""Gradio puts its area for uploads into a button."""

SETTLED = """() => !document.querySelector(".pending")
    && document.getAnimations().every(each => each.playState !== "running")"""
"""While an answer is on its way Gradio pales what stands in its place, and fades it in after."""


@pytest.mark.parametrize(("theme", "width"), [("light", 390), ("dark", 1280)])
def test_axe_finds_nothing_serious(site: Site, page: Page, theme: str, width: int) -> None:
    def check() -> None:
        page.wait_for_function(SETTLED)
        found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        told = [
            f"{rule['id']}: {node['html']} {node['failureSummary']}"
            for rule in found
            if rule["impact"] in {"serious", "critical"}
            for node in rule["nodes"]
            if not NOT_OURS.match(node["html"])
        ]
        assert told == []

    page.set_viewport_size({"width": width, "height": 844})
    page.goto(f"{site.url}?__theme={theme}")
    expect(page.get_by_role("heading", name="sample")).to_be_visible()
    check()
    page.get_by_role("button", name="Show me an example").click()
    page.get_by_text("Details").first.click()
    page.get_by_role("button", name="What drives this fit?").first.click()
    expect(page.locator("#why img")).to_be_visible()
    page.get_by_text("Or choose one of the channel’s").click()
    expect(page.locator("#picker img").first).to_be_visible()
    check()
    give_pictures(page, *(site.workspace.root / row.image for row in site.test_rows()[1:3]))
    expect(page.get_by_text("This is about what was there before.")).to_be_visible()
    check()
    grid_of(page, [*OTHERS, site.test_rows()[1].title])
    expect(page.get_by_role("link", name="PNG")).to_be_visible()
    check()
    page.locator("#ranking td > button").first.click()
    check()
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="Search").click()
    page.get_by_label("Words").fill("a robot in the snow")
    search(page, 6)
    check()
    page.get_by_role("button", name="Enlarge").first.click()
    expect(page.locator("#large:popover-open")).to_be_visible()
    check()
    page.keyboard.press("Escape")
    for tab, shown in (
        ("Map", "#map img"),
        ("Versions", "#versions section"),
        ("Report", "iframe"),
    ):
        page.get_by_role("tab", name=tab).click()
        expect(page.locator(shown).first).to_be_visible()
        check()


@pytest.mark.parametrize("width", [375, 390, 768])
def test_nothing_is_wider_than_a_phone(site: Site, page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    give_pictures(page, site.workspace.root / site.test_rows()[0].image)
    match(page, ["w" * 200, "A title of some words " * 9])
    for tab in page.get_by_role("tab").all():
        tab.click()
        expect(tab).to_have_attribute("aria-selected", "true")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    "path", ["workspace-id", "registry/sample-7c3e94b3/versions/000001.json", "../../etc/passwd"]
)
def test_no_file_of_the_workspace_is_served(site: Site, path: str) -> None:
    file = site.workspace.root / path
    answer = requests.get(f"{site.url}gradio_api/file={file}", timeout=30)
    assert answer.status_code == 403


def test_the_page_cannot_be_reached_from_other_machines(site: Site) -> None:
    with socket.socket() as other:
        other.settimeout(5)
        assert other.connect_ex(("127.0.0.2", site.port)) != 0


def test_another_sites_name_for_this_machine_is_refused(site: Site) -> None:
    for host, status in (("localhost", 200), ("evil.example", 400)):
        answer = requests.get(site.url, headers={"Host": f"{host}:{site.port}"}, timeout=30)
        assert answer.status_code == status


def test_behind_a_proxy_the_page_works_below_a_path(
    site: Site, browser: Browser, tmp_path: Path
) -> None:
    options = ("--root-path=/thumbtune", "--allowed-host=page.localhost")
    other = Site(site.workspace, tmp_path, *options)
    other.wait_until_ready()
    with ReverseProxy("/thumbtune", other.port) as proxy:
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        address = f"http://page.localhost:{proxy.port}/thumbtune/"
        page.goto(address)
        expect(page.get_by_role("heading", name="sample")).to_be_visible()
        example = site.test_rows()[0]
        give_pictures(page, site.workspace.root / example.image)
        titles = [example.title, *OTHERS]
        rows = match(page, titles)
        picture = load_image(site.workspace, example)
        assert_shows(rows, site.fits(picture, titles), site.fits(picture, titles, untouched=True))
        page.get_by_role("tab", name="Versions").click()
        expect(page.get_by_text("Version 1", exact=False).first).to_be_visible()
        expect(page.get_by_text("can be changed on the machine that serves this")).to_be_visible()
        expect(page.get_by_role("button", name="Roll back to it")).to_have_count(0)
        page.close()
        assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
        for host, status in (("page.localhost", 200), ("evil.example", 400)):
            answer = requests.get(
                f"http://127.0.0.1:{proxy.port}/thumbtune/", headers={"Host": host}, timeout=30
            )
            assert answer.status_code == status
    assert other.stop() in (0, 130)


def test_where_a_password_is_set_the_page_asks_for_it_and_lets_versions_be_chosen(
    site: Site, browser: Browser, tmp_path: Path
) -> None:
    other = Site(site.workspace, tmp_path, "--allowed-host=page.localhost", password="open sesame")
    other.wait_until_ready()
    asked: list[str] = []
    page = browser.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(other.url)
    for password, heading in (("wrong", 0), ("open sesame", 1)):
        page.get_by_label("username").fill("thumbtune")
        page.get_by_label("password").fill(password)
        with page.expect_response(re.compile("/login")):
            page.get_by_role("button", name="Login").click()
        if heading:
            expect(page.get_by_role("heading", name="sample")).to_be_visible()
    page.get_by_role("tab", name="Versions").click()
    expect(page.get_by_role("button", name="Roll back to it")).to_be_visible()
    page.close()
    answer = requests.post(f"{other.url}gradio_api/queue/join", json={}, timeout=30)
    assert answer.status_code == 401
    assert [url for url in asked if not url.startswith((other.url, "data:", "blob:"))] == []
    assert other.stop() in (0, 130)


@pytest.mark.parametrize(
    ("host", "allowed", "names"),
    [
        ("127.0.0.1", [], ["127.0.0.1", "localhost", "127.0.0.1"]),
        ("127.0.0.1", ["Example.org"], ["127.0.0.1", "localhost", "127.0.0.1", "example.org"]),
        ("0.0.0.0", [], ["*"]),
        ("0.0.0.0", ["*.lan"], ["127.0.0.1", "localhost", "0.0.0.0", "*.lan"]),
    ],
)
def test_the_page_is_asked_for_by_these_names(
    host: str, allowed: list[str], names: list[str]
) -> None:
    assert host_names(host, allowed) == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root_path": "https://example.org/x"}, "--root-path: .* such as /thumbtune"),
        ({"root_path": "/a b"}, "--root-path: '/a b' is no path"),
        ({"allowed_hosts": ["https://example.org"]}, "--allowed-host: .* is no host name"),
        ({"allowed_hosts": ["example.org:8080"]}, "without https://, port and path"),
        ({"allowed_hosts": ["ex*mple.org"]}, "is no host name"),
    ],
)
def test_a_path_or_name_that_is_none_gets_a_message(
    workspace: Workspace, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(AddressError, match=message):
        serve(workspace, Registry(workspace, "sample", None), **options)


def test_pictures_that_are_gone_are_left_out_and_told(
    workspace: Workspace, version: Version
) -> None:
    champion = Champion(workspace, Registry(workspace, "youtube", "@tester"))
    champion.matcher()  # it stores the features
    [first, second, *_] = examples_of(workspace, version)
    (workspace.root / first.image).unlink()
    assert "Left out, since the index was made: 1 picture gone." in found(champion, "a", None, 48)
    (workspace.root / second.image).unlink()
    shown = found(champion, "a", None, 48)
    assert "1 picture gone, 1 gone." in shown
    assert shown.count("<figure") == 38


def test_the_page_ranks_without_a_picture_that_is_gone_and_tells_so(
    workspace: Workspace, version: Version, tmp_path: Path
) -> None:
    champion = Champion(workspace, Registry(workspace, "youtube", "@tester"))
    upload = tmp_path / "upload.png"
    upload.write_bytes(encoded(picture(), "PNG"))
    gone = next(row for row in examples_of(workspace, version) if row.split == "test")
    (workspace.root / gone.image).unlink()
    given = [{"image": {"path": str(upload)}}]
    for pictures in (given, given * 2):
        shown = answered(champion, pictures, "A title").html
        assert "Left out of the channel’s own pairs: 1 picture gone." in shown
    assert "Held against 9 pairs" in answered(champion, given, "A title").html


def test_any_problem_that_its_user_can_mend_is_told_on_the_page() -> None:
    def fail() -> str:
        raise DamagedRecordError("The record x is damaged. Restore <it>.")

    assert "The record x is damaged. Restore &lt;it&gt;." in told(fail)()


def test_a_taken_port_gets_a_message(site: Site) -> None:
    done = site.start().wait()
    assert done.returncode == 1
    assert f"port {site.port}: Address already in use. Give another --port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_host_that_is_not_this_machine_gets_a_message(workspace: Workspace) -> None:
    registry = Registry(workspace, "sample", None)
    for host in ("192.0.2.1", "no such host"):  # the first is kept for documentation, RFC 5737
        with pytest.raises(AddressError, match=f"cannot listen on {host}, port 7860: .*--host"):
            serve(workspace, registry, host)


def test_uploads_are_removed_when_the_server_stops(
    site: Site, browser: Browser, tmp_path: Path
) -> None:
    other = Site(site.workspace, tmp_path)
    other.wait_until_ready()
    page = browser.new_page()
    page.goto(other.url)
    opened = page.get_by_role("heading", name="sample")
    expect(opened).to_be_visible()
    give_pictures(page, site.workspace.root / site.test_rows()[0].image)
    page.close()
    assert list(tmp_path.rglob("*.jpg"))
    other.stop()
    assert list(tmp_path.iterdir()) == []


def test_the_index_is_opened_once_and_again_when_it_has_changed(
    workspace: Workspace, version: Version
) -> None:
    champion = Champion(workspace, Registry(workspace, "youtube", "@tester"))
    first = champion.index()
    assert champion.index() is first

    new = make_examples(workspace, len(first) + 1)[-1]
    index_channel(workspace, version, champion.matcher(), [Entry(**dict(new))])
    second = champion.index()
    assert {entry.id for entry in second.entries} - {entry.id for entry in first.entries} == {
        new.id
    }
    assert champion.index() is second

    workspace.remove(f"{channel_place(version.model.fingerprint, version)}/index.json")
    with pytest.raises(NoIndexError):
        champion.index()


def test_a_picture_that_is_gone_or_damaged_is_not_offered(
    workspace: Workspace, version: Version
) -> None:
    champion = Champion(workspace, Registry(workspace, "youtube", "@tester"))
    gone, damaged, *whole = champion.choices()
    (workspace.root / gone.image).unlink()
    stored = workspace.root / damaged.image
    stored.write_bytes(stored.read_bytes()[:20])
    assert choose(champion)[1] == whole


@given(st.text())
def test_titles_are_read_one_a_line(text: str) -> None:
    try:
        titles = read_titles(text)
    except QuestionError:
        return
    assert titles
    assert len(set(titles)) == len(titles)
    lines = [line.strip() for line in text.splitlines()]
    assert [line for line in dict.fromkeys(lines) if line] == titles


def about(fits: list[Fit]) -> dict[str, Any]:
    """What else a ranking shows."""
    nothing: dict[str, Any] = {"left_out": "", "nearest": [], "used": {f.title: "" for f in fits}}
    nothing["views"] = None
    return {"asked": "1", "picture": "data:,", "answer": answer_of(fits, 0.1), **nothing}


@given(title=NASTY | st.text(), other=NASTY | st.text())
def test_no_title_adds_a_tag_to_the_ranking(title: str, other: str) -> None:
    def shown(*titles: str) -> Tags:
        fits = [Fit(title=t, cosine=0.5, percentile=50, rank=1, of=2) for t in titles]
        lines = side_by_side(fits, fits)
        return Tags(html("ranking", lines=lines, pairs=2, close=0.1, **about(fits)))

    tags = shown(title, other)
    assert tags.names == shown("a", "b").names
    assert "\n".join(title.splitlines()) in "\n".join(tags.text.splitlines())


@pytest.mark.parametrize(
    ("percentile", "words"),
    [
        (0, "not better than any"),
        (0.2, "better than 1 %"),
        (71.6, "better than 72 %"),
        (99.9, "better than 99 %"),
        (100, "better than all"),
    ],
)
def test_only_all_is_called_all(percentile: float, words: str) -> None:
    assert share_in_words(percentile) == words
