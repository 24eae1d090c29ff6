"""The page of `thumbtune web`: match titles with thumbnails, search thumbnails, see versions."""

import signal
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fastapi.middleware import Middleware
from fastapi.middleware.trustedhost import TrustedHostMiddleware

from thumbtune.app.address import check_address
from thumbtune.app.in_use import Champion, QuestionError
from thumbtune.app.match_tab import match_tab
from thumbtune.app.parts import RAW, gr, html, told
from thumbtune.app.search_tab import search_tab
from thumbtune.channel.registry import Registry
from thumbtune.store.workspace import Workspace

MAX_UPLOAD = "64mb"  # what is larger than a thumbnail may be is made smaller

SCRIPT = (Path(__file__).parent / "templates" / "page.js").read_text(encoding="utf-8")


def header(champion: Champion) -> str:
    """Which channel this is, and which version of its model is in use."""
    registry = champion.registry
    version = champion.version()
    return html(
        "header",
        channel=registry.identity.called,
        version=version,
        versions=len(registry.versions()),
        recall=version.metrics.get("Recall@1"),
        videos=version.examples.rows,
    )


def report(champion: Champion) -> str:
    """The report of the version in use."""
    version = champion.version()
    path = f"{PurePosixPath(version.model.kept_at(champion.workspace) or '').parent}/report.html"
    try:
        page = champion.workspace.read(path).decode()
    except FileNotFoundError:
        raise QuestionError(
            f"The report of version {version.number} is no longer there "
            f"({champion.workspace}/{path}). Train again: only what is missing is made."
        ) from None
    return html("report", number=version.number, page=page)


def build_page(workspace: Workspace, registry: Registry) -> gr.Blocks:
    """The page of one channel."""
    champion = Champion(workspace, registry)
    channel = registry.identity.called
    with gr.Blocks(
        title=f"thumbtune · {channel}", analytics_enabled=False, fill_width=True
    ) as page:
        head = gr.HTML(apply_default_css=False)
        page.load(told(lambda: header(champion)), None, head, js=SCRIPT, **RAW)
        with gr.Tabs() as tabs:
            with gr.Tab("Match titles", id="match"):
                form = match_tab(champion)
            with gr.Tab("Search thumbnails", id="search"):
                search_tab(champion, form, tabs)
            with gr.Tab("Report", id="report") as tab:
                shown = gr.HTML(apply_default_css=False)
                tab.select(told(lambda: report(champion)), None, shown, **RAW)
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
    page = build_page(workspace, registry)
    page.launch(
        server_name=host,
        server_port=port,
        root_path=root_path,
        app_kwargs={"middleware": [only_by_name]},
        share=False,
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
