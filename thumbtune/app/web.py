"""The page of `thumbtune web`: match titles with thumbnails, search thumbnails, see versions."""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from fastapi.middleware import Middleware
from fastapi.middleware.trustedhost import TrustedHostMiddleware

from thumbtune.app.address import LOOPBACK, check_address
from thumbtune.app.in_use import Champion, QuestionError
from thumbtune.app.match_tab import match_tab
from thumbtune.app.parts import ONE_AT_A_TIME, RAW, choosing, gr, header, html, told
from thumbtune.app.search_tab import search_tab
from thumbtune.app.versions_tab import versions_tab
from thumbtune.channel.registry import Registry
from thumbtune.reporting.report import PREDICTIONS
from thumbtune.store.workspace import Workspace

LET_IN_BY = "THUMBTUNE_WEB_PASSWORD"
USER = "thumbtune"
MAX_UPLOAD = "64mb"  # what is larger than a thumbnail may be is made smaller

SCRIPT = (Path(__file__).parent / "templates" / "page.js").read_text(encoding="utf-8")


REMEMBER = "(...asked) => window.thumbtune?.remember(...asked)"
REMEMBERED = "() => window.thumbtune.remembered()"
"""What stands in the form outlives a reload of the page."""


def report(champion: Champion) -> str:
    """The report of the version in use."""
    version = champion.version()
    folder = PurePosixPath(version.model.kept_at(champion.workspace) or "").parent
    path = f"{folder}/report.html"
    try:
        page = champion.workspace.read(path).decode()
    except FileNotFoundError:
        raise QuestionError(
            f"The report of version {version.number} is no longer there "
            f"({champion.workspace}/{path}). Train again: only what is missing is made."
        ) from None
    answers = ""  # the page serves no file of the workspace, so the link holds it
    with suppress(OSError):
        answers = quote(champion.workspace.read(f"{folder}/{PREDICTIONS}"))
    page = page.replace(f'href="{PREDICTIONS}"', f'href="data:text/csv;charset=utf-8,{answers}"')
    page = page.replace("<head>", '<head><base href="about:srcdoc">', 1)  # of its list of contents
    return html("report", version=version, page=page)


def build_page(workspace: Workspace, registry: Registry, may_decide: bool) -> gr.Blocks:
    """The page of one channel.

    Args:
        may_decide: whether a visitor may make another version the champion.
    """
    champion = Champion(workspace, registry)
    channel = registry.identity.called
    with gr.Blocks(
        title=f"thumbtune · {channel}", analytics_enabled=False, fill_width=True
    ) as page:
        head = gr.HTML(apply_default_css=False)
        loaded = page.load(told(lambda: header(champion)), None, head, js=SCRIPT, **RAW)
        large = choosing("alone", render=False)
        with gr.Tabs() as tabs:
            with gr.Tab("Match", id="match"):
                form = match_tab(champion)
            with gr.Tab("Search", id="search"):
                search = search_tab(champion, form, large, tabs)
            with gr.Tab("Map", id="map") as tab:
                drawn = choosing("map")
                draw = told(lambda: html("map", map=champion.map()))
                tab.select(draw, None, drawn, **RAW, **ONE_AT_A_TIME)
                search.connect(drawn)
            versions_tab(champion, may_decide, head)
            with gr.Tab("Report", id="report") as tab:
                shown = gr.HTML(apply_default_css=False)
                tab.select(told(lambda: report(champion)), None, shown, **RAW)
        large.render()
        asked: list[Any] = [form.uploads, form.text, search.words]
        loaded.then(None, None, asked, js=REMEMBERED)
        for part in asked:
            part.change(None, asked, None, js=REMEMBER)
    return page


def _theme() -> gr.themes.Base:
    """The colours of the report, and fonts that every system has."""
    theme = gr.themes.Default(
        primary_hue="emerald",
        secondary_hue="emerald",
        neutral_hue="slate",
        font=("system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    )
    return theme.set(
        color_accent="#1b7f4b",
        button_primary_background_fill="#1b7f4b",
        button_primary_background_fill_hover="#166b3f",
        button_primary_background_fill_dark="#1b7f4b",
        button_primary_background_fill_hover_dark="#166b3f",
        button_primary_text_color="white",
        body_text_color_subdued="#5c6778",
        body_text_color_subdued_dark="#9aa5b5",
    )


def serve(
    workspace: Workspace,
    registry: Registry,
    host: str = "127.0.0.1",
    port: int = 7860,
    root_path: str = "",
    allowed_hosts: Sequence[str] = (),
) -> None:
    """Serve the page until the process is told to stop.

    Where THUMBTUNE_WEB_PASSWORD is set, visitors give it, and the name `thumbtune`. Without it
    versions can be changed only where nobody but this machine is served.

    Args:
        root_path: below which a reverse proxy serves it, such as /thumbtune; the proxy takes it
            away from what it hands on.
        allowed_hosts: names by which the proxy is asked.

    Raises:
        AddressError: the port is taken, the host is not this machine, or the path or a name is
            none.
    """
    root_path, names = check_address(host, port, root_path, allowed_hosts)
    only_by_name = Middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that uploads are removed
    password = os.environ.get(LET_IN_BY)
    local = host in LOOPBACK and not root_path and not allowed_hosts
    page = build_page(workspace, registry, may_decide=local or bool(password))
    page.launch(
        server_name=host,
        server_port=port,
        root_path=root_path,
        app_kwargs={"middleware": [only_by_name]},
        share=False,
        auth=(USER, password) if password else None,
        max_file_size=MAX_UPLOAD,
        theme=_theme(),
        css_paths=Path(__file__).parent / "templates" / "page.css",
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        quiet=True,
        prevent_thread_lock=True,
    )
    print(f"{page.local_url} – stop with Ctrl-C", flush=True)
    page.block_thread()
