"""Text of strangers stays text: in Markdown, in chats and on a terminal."""

import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pytest_httpserver import HTTPServer

from tests.reporting.test_publishing import evaluation, plan_of, trained
from thumbtune.errors import UserError
from thumbtune.flows.command_line import exit_code
from thumbtune.learning.promotion import Verdict
from thumbtune.parameters import TrainParameters
from thumbtune.reporting.cards import dataset_card, model_card
from thumbtune.reporting.report import FunnelStage
from thumbtune.store.model_reference import ModelReference
from thumbtune.tasks.artifacts import in_cells
from thumbtune.tasks.notifications import notify_failure, notify_verdict
from thumbtune.text.escaping import (
    LONGEST_CONTENT,
    as_code,
    for_discord,
    for_markdown,
    for_slack,
    for_terminal,
    json_for_terminal,
)

MARKUP = [
    "<script>alert(1)</script>",
    "a | b || c",
    "`code` ``more``",
    "[text](http://evil.example)",
    "[text][1] ![picture](http://evil.example/p.png)",
    "http://evil.example www.evil.example me@evil.example",
    "<http://evil.example|text> &lt; &amp; &#60;",
    "**bold** _italic_ ~~gone~~ $x^2$ \\| \\",
    "# heading #",
    "- item",
    "1. first",
    "===",
    "line\n\n| a | b |\n# next",
    "<!channel> <!here> <@U123> <#C1> <!subteam^S1>",
    "@channel @here @all @everyone @someone @Channel",
    "host 'a|b.example' is not in thumbnails.allowed_hosts; add it there",
    "\x1b[2J\x1b]0;title\x07\x9b31m",
    "\u202eright to left\u2069",
    "[red]markup[/red] [/] [link=http://evil.example]x[/link]",
    "\ud800",
]
TEXT = st.sampled_from(MARKUP) | st.text()
TEXT |= st.lists(st.sampled_from(MARKUP) | st.text(max_size=3)).map("".join)
ADDRESS = re.compile(r"(https?|ftp)://|www\.|[^\s\\]@", re.IGNORECASE)
"""What GitHub's Markdown makes a link of, unless there is a backslash in it."""


def as_shown(text: str) -> str:
    """On one line, without what nobody can see."""
    return for_terminal(" ".join(text.split()))


def parsed(markdown: str) -> list[Token]:
    return MarkdownIt("gfm-like", {"linkify": False}).parse(markdown)


def inlines(markdown: str) -> list[str]:
    """The inline texts of a document as a reader sees them; nothing but text may be in them."""
    found = [token.children or [] for token in parsed(markdown) if token.type == "inline"]
    assert {part.type for inline in found for part in inline} <= {"text", "text_special"}
    return ["".join(part.content for part in inline) for inline in found]


@given(TEXT)
def test_any_text_reads_letter_by_letter_in_a_markdown_table(text: str) -> None:
    cell = for_markdown(text)
    assert inlines(f"| a | b |\n| --- | --- |\n| {cell} | {cell} |")[2:] == [as_shown(text)] * 2
    assert not ADDRESS.search(cell)


@given(TEXT)
def test_any_text_is_a_plain_paragraph_and_a_heading_of_markdown(text: str) -> None:
    shown = [as_shown(text)] if as_shown(text) else []
    for markdown, kind in (
        (for_markdown(text), "paragraph"),
        (f"# {for_markdown(text)}", "heading"),
    ):
        assert {token.type for token in parsed(markdown)} <= {
            f"{kind}_open",
            "inline",
            f"{kind}_close",
        }
        assert [line for line in inlines(markdown) if line] == shown


@given(TEXT.filter(as_shown))
def test_any_text_is_code_of_markdown(text: str) -> None:
    [inline] = [token for token in parsed(f"Of {as_code(text)}.") if token.type == "inline"]
    kinds = [(part.type, part.content) for part in inline.children or []]
    assert kinds == [("text", "Of "), ("code_inline", as_shown(text)), ("text", ".")]


@given(TEXT)
def test_slack_and_mattermost_are_given_text_without_a_mention_or_a_link(text: str) -> None:
    said = for_slack(text)
    assert not re.search("[<>]|&(?!(amp|lt|gt);)|@\\w|\\]\\(|\\]\\[|\n", said)
    read = said.replace("\u200b", "").replace("&lt;", "<").replace("&gt;", ">")
    assert read.replace("&amp;", "&") == as_shown(text).replace("\u200b", "")


def test_the_channels_own_handle_stays_unless_it_calls_all() -> None:
    said = for_slack("@tester: '@tester' @tester. @testers @channel", own="@tester")
    assert said == "@tester: '@tester' @tester. @\u200btesters @\u200bchannel"
    assert for_slack("@channel", own="@channel") == "@\u200bchannel"


@given(TEXT)
def test_discord_is_given_text_without_a_format(text: str) -> None:
    said = for_discord(text)
    assert re.sub(r"\\(.)", r"\1", said) == as_shown(text)
    assert not re.search(r"[`*_~|<>\[\]()#:@]", re.sub(r"\\.", "", said))


@pytest.mark.parametrize("text", ["x" * 5000, "*" * 5000, "\\" * 5000])
def test_a_message_is_no_longer_than_discord_takes(text: str) -> None:
    said = for_discord(text)
    assert len(said) <= LONGEST_CONTENT
    assert said.endswith("…")
    assert not re.search(r"(?<!\\)(\\\\)*\\…", said)


@given(st.text())
def test_a_terminal_is_given_no_command(text: str) -> None:
    for shown in (for_terminal(text), json_for_terminal(json.dumps(text, ensure_ascii=False))):
        assert not [c for c in shown if c not in "\n\t" and (ord(c) < 32 or 127 <= ord(c) < 160)]
        assert not set(shown) & {"\u202e", "\u2066", "\u2028"}
        shown.encode()  # no half of a pair
    assert json.loads(json_for_terminal(json.dumps(text, ensure_ascii=False))) == text


def test_plain_text_stays_as_it_is() -> None:
    for plain in ("Größe 日本語 🔥: 12 %, it's (here); a-b/c", "two\nlines\tand a tab", "עברית"):
        assert for_terminal(plain) == plain
        assert for_markdown(plain) == for_slack(plain) == " ".join(plain.split())


# --- where it is shown ---


class Webhook:
    """What it was told last."""

    def __init__(self, http: HTTPServer) -> None:
        self.http = http
        http.expect_request("/hook").respond_with_data("ok")

    def last(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.http.log[-1][0].data)
        return message


@pytest.fixture
def told(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Webhook:
    monkeypatch.setenv("THUMBTUNE_WEBHOOK_URL", httpserver.url_for("/hook"))
    return Webhook(httpserver)


NASTY = "<!channel> @everyone [free](http://evil.example) <http://evil.example|x>\n@here"


def test_a_message_to_the_webhook_mentions_nobody_and_has_no_link(told: Webhook) -> None:
    state = SimpleNamespace(name="Failed", message=NASTY)
    run = SimpleNamespace(parameters={"channel": "@tester"}, id="1")
    notify_failure(SimpleNamespace(name="train"), run, state)
    failed = told.last()
    notify_verdict("@tester", Verdict(version=1, is_new=True, promoted=True, why=NASTY, champion=1))
    for message in (failed, told.last()):
        assert message["allowed_mentions"] == {"parse": []}
        assert "@tester" in message["text"]
        assert not re.search(r"<|>|@(everyone|here)|\]\(|\n", message["text"])
        assert not re.search(r"(?<!\\)[\[(<@]", message["content"])
    assert (failed["event"], failed["flow_run"]) == ("train.failed", "1")


@pytest.mark.slow
def test_cards_show_names_and_reasons_as_text() -> None:
    model = ModelReference(name="m", path="/m", fingerprint="f")
    models = (evaluation(model, 0.5), None, evaluation(model, 0.75))
    figures = (plan_of(TrainParameters(channel="@a")), trained(Path("/m")), *models)
    for nasty in MARKUP[:-1]:
        parameters = TrainParameters(source="hub", channel=nasty)
        funnel = [FunnelStage(name="thumbnails", found=9, kept=8, dropped={nasty: 1})]
        plain = [FunnelStage(name="thumbnails", found=9, kept=8, dropped={"x": 1})]
        for make in (
            lambda p, f: model_card(p, f, *figures),
            lambda p, f: dataset_card(p, f, {"train": 5}),
        ):
            card, usual = (
                make(p, f).partition("\n---\n")[2]
                for p, f in (
                    (parameters, funnel),
                    (TrainParameters(source="hub", channel="o/n"), plain),
                )
            )
            tokens, expected = parsed(card), parsed(usual)
            assert [token.type for token in tokens] == [token.type for token in expected]
            kinds, as_usual = (
                [
                    [part.type for part in t.children or [] if part.type != "text_special"]
                    for t in all_
                ]
                for all_ in (tokens, expected)
            )
            assert [set(k) for k in kinds] == [set(k) for k in as_usual]
            texts = ["".join(p.content for p in t.children or []) for t in tokens]
            assert f"1 {as_shown(nasty)}" in texts


def test_cells_of_a_table_artifact_are_markdown_that_reads_as_text() -> None:
    rows = in_cells([{"stage": "thumbnails", "found": 3, "left out": nasty} for nasty in MARKUP])
    for row, nasty in zip(rows, MARKUP, strict=True):
        assert (row["found"], row["stage"]) == (3, "thumbnails")
        assert inlines(row["left out"]) == [as_shown(nasty)]


def test_a_flows_errors_and_logs_command_nothing(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(error: Exception) -> None:
        raise error

    assert exit_code(lambda: fail(UserError("no \x1b[2J\x9bhost"))) == 1
    assert exit_code(lambda: fail(ValueError("odd \x1b]0;x\x07"))) == 1
    shown = capsys.readouterr().err
    assert "thumbtune: no \ufffd[2J\ufffdhost" in shown
    assert not re.search("[\x1b\x07\x9b]", shown)

    logger = logging.getLogger("prefect.flow_runs")
    with caplog.at_level(logging.WARNING, logger="prefect.flow_runs"):
        logger.warning("its channel is %s now", "\x1b[2Jred")
    assert caplog.messages[-1] == "its channel is \ufffd[2Jred now"
