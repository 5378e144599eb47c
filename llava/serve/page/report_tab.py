"""The tab that shows the model's scores."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from llava.common.html.markup import tag
from llava.serve.page.pictures import ShownPictures
from llava.serve.page.words import text


def find_report(model_path: str) -> Path | None:
    """Return the report of scores beside or in a model's folder, as `llava-inspect run` and `score` write it;
    None where there is none."""
    folder = Path(model_path)
    if not folder.is_dir():
        return None
    places = (folder, folder.resolve().parent)
    reports = [place / name for place in places for name in ("scores/report.html", "report.html")]
    return next((path for path in reports if path.is_file()), None)


def report_tab(report: Path | None, pictures: ShownPictures) -> None:
    """Build the tab; the report is read once, now."""
    if report is None:
        gr.Markdown(text("no_report"))
        return
    address = pictures.add_file(report.read_bytes(), "html")
    gr.Markdown(text("report_title"))
    gr.HTML(tag("iframe", src=address, title=report.name, class_="report"))
