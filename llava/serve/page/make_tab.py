"""The tab that cuts something out of a photo by clicks, and paints there what words say; or labels it."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from llava.painting.views import Segmenter
from llava.serve.page.cut_part import CutPart
from llava.serve.page.easel import Easel
from llava.serve.page.label_part import LabelPart
from llava.serve.page.paint_part import PaintPart
from llava.serve.page.visitors import Visitors
from llava.serve.page.words import text


@dataclass(frozen=True)
class Tools:
    """What things are cut out with and painted; `easel` is None where nothing is painted but labelled."""

    segmenter: Segmenter
    easel: Easel | None


def make_tab(visitors: Visitors, tools: Tools) -> None:
    """Build the tab."""
    gr.Markdown(text("make_intro" if tools.easel else "label_intro"))
    with gr.Row():
        with gr.Column(scale=3, min_width=280):
            cut = CutPart(visitors, tools.segmenter)
        with gr.Column(scale=2, min_width=280):
            if tools.easel is None:
                LabelPart(visitors, cut.drawing)
                return
            paint = PaintPart(visitors, tools.easel)
    paint.build_result()
