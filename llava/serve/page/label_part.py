"""The part of a tab in which what was cut out is labelled."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from llava.common.errors import InputError
from llava.serve.page.making import OFFERED
from llava.serve.page.making_view import draw_cut, show_labels
from llava.serve.page.visitors import Visitors
from llava.serve.page.words import text, words_for


class LabelPart:
    """Builds the part, and answers its events."""

    def __init__(self, visitors: Visitors, drawing: gr.HTML) -> None:
        """Take the visitors, and what shows what they cut out."""
        self._visitors = visitors
        name = gr.Textbox(
            "",
            label=text("make_name"),
            placeholder=text("label_name_hint"),
            max_length=100,
            elem_id="make-name",
        )
        add = gr.Button(text("label_add"), variant="primary", elem_id="make-add")
        labels = gr.HTML(elem_id="make-labels")
        gr.on(
            [add.click, name.submit],
            self._label,
            [name],
            [drawing, labels],
            api_visibility="private",
            show_progress="hidden",
        )

    def _label(self, name: str, request: gr.Request) -> list[Any]:
        say = words_for(request)
        visitor = self._visitors.of(request)
        making = visitor.making
        try:
            if making is None or making.mask is None:
                raise InputError(say("make_no_mask"))
            if not name.strip():
                raise InputError(say("make_no_name"))
            content = making.label(name)
        except InputError as error:
            gr.Warning(html.escape(str(error)))
            return [gr.skip(), gr.skip()]
        address = self._visitors.offer(visitor, OFFERED, content.encode(), "json")
        return [draw_cut(making, say), show_labels(making, address, say)]
