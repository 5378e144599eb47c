"""The part of a tab in which something is cut out of a photo, by clicks."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

import gradio as gr
import numpy as np

from llava.common.errors import InputError, one_line
from llava.common.html.markup import tag
from llava.painting.segment import GrabCut
from llava.painting.views import Segmenter
from llava.serve.page.making import PHOTO, Making
from llava.serve.page.making_view import draw_cut
from llava.serve.page.photo_input import PhotoInput
from llava.serve.page.visitors import Visitor, Visitors
from llava.serve.page.words import text, words_for

FAILURES = (InputError, RuntimeError)
"""What is told the visitor; PyTorch raises the second, such as where no memory is left."""


class CutPart:
    """Builds the part, and answers its events. `drawing` lies over the photo."""

    def __init__(self, visitors: Visitors, segmenter: Segmenter) -> None:
        """Take the visitors, and what cuts out."""
        self._visitors = visitors
        self._segmenter = segmenter
        # Clicks are on the thing and beside it, or the corners of a box around it.
        self._takes_clicks = not isinstance(segmenter, GrabCut)
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        busy = private | {"concurrency_limit": 1, "concurrency_id": "cut"}  # a model's memory is for one
        photo = PhotoInput(self._visitors, PHOTO, stacked=True)
        gr.Markdown(text("make_click" if self._takes_clicks else "make_corners"))
        # Gradio has no other way to leave it out of the events' inputs.
        out = gr.Checkbox(False, label=text("make_out"), visible=self._takes_clicks, elem_id="make-out")
        with photo.place:
            self.drawing = cut = gr.HTML(
                js_on_load=resources.files(__package__).joinpath("click.js").read_text(encoding="utf-8"),
                elem_id="make-cut",
            )
        with gr.Row():
            undo = gr.Button(text("make_undo"), size="sm", min_width=90, elem_id="make-undo")
            clear = gr.Button(text("make_clear"), size="sm", min_width=90, elem_id="make-clear")
            example = gr.Button(text("example"), size="sm", min_width=90, elem_id="make-example")
        photo.taken.then(self._look, None, [cut], **busy)
        example.click(photo.take_example, None, [photo.view], **private).then(self._look, None, [cut], **busy)
        cut.input(self._clicked, [out], [cut], **busy)
        undo.click(self._undo, None, [cut], **busy)
        clear.click(self._clear, None, [cut], **busy)

    def _look(self, request: gr.Request) -> Iterator[Any]:
        """Look at the visitor's photo, once for all clicks."""
        say = words_for(request)
        try:
            visitor = self._visitors.of(request)
            if not self._is_new(visitor):
                yield gr.skip()
                return
            yield tag("p", say("make_looks"), role="status")
            yield draw_cut(self._making(visitor), say)
        except FAILURES as error:
            gr.Warning(html.escape(one_line(error)))
            yield ""

    def _is_new(self, visitor: Visitor) -> bool:
        photo = visitor.photos.get(PHOTO)
        return photo is not None and (visitor.making is None or visitor.making.photo is not photo)

    def _making(self, visitor: Visitor) -> Making:
        if self._is_new(visitor):
            photo = visitor.photos[PHOTO]
            pixels = np.asarray(photo.image)
            view = self._segmenter.look(pixels)
            visitor.making = Making(photo, pixels, view, takes_clicks=self._takes_clicks)
        assert visitor.making is not None
        return visitor.making

    def _clicked(self, out: bool, event: gr.EventData, request: gr.Request) -> Any:
        return self._change(request, lambda making: making.click(float(event.x), float(event.y), not out))

    def _undo(self, request: gr.Request) -> Any:
        return self._change(request, Making.undo)

    def _clear(self, request: gr.Request) -> Any:
        return self._change(request, Making.clear)

    def _change(self, request: gr.Request, change: Callable[[Making], None]) -> Any:
        """Return the drawing after a change of the clicks."""
        say = words_for(request)
        making = None
        try:
            visitor = self._visitors.of(request)
            if PHOTO not in visitor.photos:  # the visitor was wiped, and the page still shows it
                raise InputError(say("no_photo"))
            making = self._making(visitor)
            change(making)
        except FAILURES as error:
            gr.Warning(html.escape(one_line(error)))
        return "" if making is None else draw_cut(making, say)
