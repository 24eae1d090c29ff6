"""What the pages for people tell a reader to run, and what they show as its answer."""

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").glob("*.md"))]
SHELLS = {"sh", "bash", "shell", "console", "zsh"}
ASSIGNMENT = re.compile(r"[A-Z_]+=")
LOOKS_LIKE_A_COMMAND = re.compile(r"([A-Z_]+=\S* )*[a-z./][\w./-]* \S{2,}")
"""Inline code: a word that may be a program's name, and another that is no operator."""


class Command(NamedTuple):
    """One line that a reader may run."""

    page: str
    line: str
    """As it is written, lines that go on in one."""
    programs: tuple[tuple[str, ...], ...]
    """The words of each command in it, without what it sets in the environment."""
    before: tuple[str, ...] = ()
    """Lines of the page before it that change the shell: `source …`, `export …`."""

    @property
    def words(self) -> tuple[str, ...]:
        """Of the command that is not about the shell; the first if there is no other."""
        return next((w for w in self.programs if w[0] not in STATE), self.programs[0])

    def __str__(self) -> str:
        return f"{self.page}: {self.line}"


STATE = {"source", "export", "cd"}


def tokens(page: Path) -> list[Token]:
    return MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))


def split(line: str) -> tuple[tuple[str, ...], ...]:
    """The words of each command of a line, comments and assignments left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.commenters = ""
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in lexer:
        if word.startswith("#"):
            break
        if set(word) <= set(";&|"):
            commands.append([])
        elif commands[-1] or not ASSIGNMENT.match(word):
            commands[-1].append(word)
    return tuple(tuple(words) for words in commands if words)


def commands(page: Path) -> list[Command]:
    """The lines of a page's shell blocks, and what of its inline code is a command."""
    found, state = [], list[str]()
    if page.name != "README.md":  # which says how to activate the environment, and comes first
        state.append("source .venv/bin/activate")
    for token in tokens(page):
        if token.type == "fence" and token.info.split(" ")[0] in SHELLS:
            lines = token.content.replace("\\\n", "").splitlines()
        else:
            lines = [code for code in inline_code(token) if LOOKS_LIKE_A_COMMAND.match(code)]
        for line in lines:
            if not (programs := split(line)):
                continue
            found.append(Command(page.name, line, programs, tuple(state)))
            if all(words[0] in STATE for words in programs):
                state.append(line)
    return found


def inline_code(token: Token) -> list[str]:
    return [child.content for child in token.children or () if child.type == "code_inline"]


def options(page: Path) -> Iterator[str]:
    """Inline code that names options and no program, such as `--split.method given`."""
    for token in tokens(page):
        yield from (code for code in inline_code(token) if re.match(r"--\w", code))


def shown(page: Path) -> list[str]:
    """Lines that a page shows as an answer of a command: those of its blocks without a language."""
    blocks = [token for token in tokens(page) if token.type == "fence" and not token.info]
    return [line for block in blocks for line in block.content.splitlines()]


def links(page: Path) -> list[str]:
    """Where a page's links and images lead, as they are written."""
    found = []
    for token in tokens(page):
        for child in token.children or ():
            found += [str(child.attrs[name]) for name in ("href", "src") if name in child.attrs]
    return found


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    page_tokens = tokens(page)
    titles = [
        after.content
        for token, after in itertools.pairwise(page_tokens)
        if token.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
