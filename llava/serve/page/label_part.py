"""The part of a tab in which what was cut out is labelled."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from llava.common.errors import InputError
from llava.serve.page.making import OFFERED, Making
from llava.serve.page.making_view import draw_cut, show_labels
from llava.serve.page.visitors import Visitor, Visitors
from llava.serve.page.words import Words, text, words_for


class LabelPart:
    """Builds the part, and answers its events."""

    def __init__(self, visitors: Visitors, drawing: gr.HTML) -> None:
        """Take the visitors, and what shows what they cut out."""
        self._visitors = visitors
        name = gr.Textbox(
            "",
            label=text("make_name"),
            placeholder=text("make_name_hint"),
            max_length=100,
            elem_id="make-name",
        )
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        with gr.Row():
            add = gr.Button(text("label_add"), variant="primary", min_width=90, elem_id="make-add")
            undo = gr.Button(text("label_undo"), min_width=90, elem_id="make-unlabel")
        labels = gr.HTML(elem_id="make-labels")
        gr.on([add.click, name.submit], self._label, [name], [drawing, labels], **private)
        undo.click(self._unlabel, None, [drawing, labels], **private)

    def _label(self, name: str, request: gr.Request) -> list[Any]:
        say = words_for(request)
        try:
            visitor = self._visitors.of(request)
            making = visitor.making
            if making is None or making.mask is None:
                raise InputError(say("make_no_mask"))
            if not name.strip():
                raise InputError(say("make_no_name"))
            making.label(name)
        except InputError as error:
            gr.Warning(html.escape(str(error)))
            return [gr.skip(), gr.skip()]
        return self._shown(visitor, making, say)

    def _unlabel(self, request: gr.Request) -> list[Any]:
        """Take the last label back."""
        visitor = self._visitors.of(request)
        if visitor.making is None or not visitor.making.labelled:
            return [gr.skip(), gr.skip()]
        visitor.making.unlabel()
        return self._shown(visitor, visitor.making, words_for(request))

    def _shown(self, visitor: Visitor, making: Making, say: Words) -> list[Any]:
        """Return the drawing, and where the labels are downloaded."""
        address = self._visitors.offer(visitor, OFFERED, making.labels.encode(), "json")
        return [draw_cut(making, say), show_labels(making, address, say) if making.labelled else ""]
