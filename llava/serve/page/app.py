"""The page as an application: its tabs, and what keeps it to itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path

import gradio as gr
from fastapi import FastAPI, Request, Response

from llava.serve.page.chat_tab import ChatTab
from llava.serve.page.find_tab import FindTab
from llava.serve.page.make_tab import Tools, make_tab
from llava.serve.page.odd_tab import OddTab
from llava.serve.page.report_tab import report_tab
from llava.serve.page.visitors import Visitors
from llava.serve.page.words import text, translations

POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio's own scripts need both
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "media-src 'self' blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
"""What a browser may do with the page (Content-Security-Policy): nothing comes from or goes to elsewhere."""
KINDS = {
    "jpg": "image/jpeg",
    "html": "text/html; charset=utf-8",
    "zip": "application/zip",
    "json": "application/json",
}
HEAD = "<script>document.documentElement.lang = navigator.language;</script>"


def create_app(
    visitors: Visitors,
    model_name: str,
    report: Path | None = None,
    users: list[tuple[str, str]] | None = None,
    tools: Tools | None = None,
) -> FastAPI:
    """Return the page.

    Args:
        visitors: Who has it open.
        model_name: What the model is called.
        report: The model's scores, report.html.
        users: Names and passwords; None where everybody may come.
        tools: What things are cut out with and painted; None where the page does neither.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def keep_to_itself(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"
        if not request.url.path.startswith(("/assets/", "/static/")):
            response.headers["Cache-Control"] = "no-store"
        return response

    @app.get("/shown/{name}")
    def shown(name: str) -> Response:
        content = visitors.pictures.get(name)
        if content is None:
            return Response(status_code=404)
        return Response(content, media_type=KINDS[name.rpartition(".")[2]])

    package = resources.files(__package__)
    wordings = visitors.decision.wordings if visitors.decision else ()
    return gr.mount_gradio_app(
        app,
        create_blocks(visitors, model_name, report, tools),
        path="/",
        auth=users,
        show_error=False,
        footer_links=[],
        run_history=False,  # Gradio's own record of what was asked, on disk
        max_file_size=visitors.limits.max_request_mib * 2**20,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        i18n=translations(
            minutes=f"{visitors.idle_seconds / 60:g}",
            wordings=" / ".join(f'"{wording}"' for wording in wordings),
        ),
        theme=gr.themes.Default(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"], primary_hue="blue"
        ),
        css=package.joinpath("page.css").read_text(encoding="utf-8"),
        head=HEAD,
    )


def create_blocks(visitors: Visitors, model_name: str, report: Path | None, tools: Tools | None) -> gr.Blocks:
    """Return the page's tabs."""
    with gr.Blocks(title="LLaVA Inspect", analytics_enabled=False, fill_width=True) as blocks:
        gr.Markdown(f"# LLaVA Inspect · {model_name}")
        gr.Markdown(text("intro"))
        with gr.Tabs():
            with gr.Tab(text("chat")):
                ChatTab(visitors)
            with gr.Tab(text("find")):
                FindTab(visitors)
            with gr.Tab(text("odd")):
                OddTab(visitors)
            if tools is not None:
                with gr.Tab(text("make" if tools.easel else "label_photos")):
                    make_tab(visitors, tools)
            with gr.Tab(text("report")):
                report_tab(report, visitors.pictures)

        def wipe(request: gr.Request) -> None:
            visitors.wipe(request.session_hash)

        blocks.unload(wipe)
    blocks.queue(default_concurrency_limit=None, max_size=256, api_open=False)
    return blocks
