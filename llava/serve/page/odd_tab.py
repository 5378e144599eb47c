"""The tab that says which unit of an insulator string is unlike its neighbours."""

from __future__ import annotations

import html
from importlib.util import find_spec
from typing import Any

import gradio as gr

from llava.common.environment import how_to_install
from llava.common.errors import InputError
from llava.serve.page.photo_input import PhotoInput
from llava.serve.page.visitors import Visitors
from llava.serve.page.words import text, words_for

PHOTO, RESULT = "odd", "odd-result"
AT_A_TIME = 2
"""Photos that are compared at a time, whoever's they are."""


class OddTab:
    """Builds the tab, and answers its events."""

    def __init__(self, visitors: Visitors) -> None:
        """Take the visitors, for whom it compares."""
        self._visitors = visitors
        if not all(map(find_spec, ("cv2", "scipy"))):
            gr.Markdown(f"`{how_to_install('oddone')}`")
            return
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        busy: dict[str, Any] = {
            "api_visibility": "private",
            "concurrency_limit": AT_A_TIME,
            "concurrency_id": "odd",
        }
        gr.Markdown(text("odd_intro"))
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                photo = PhotoInput(visitors, PHOTO, boxable=True)
                box = gr.Textbox(
                    label=text("odd_box"), placeholder=text("odd_box_hint"), max_length=60, elem_id="odd-box"
                )
                with gr.Row():
                    start = gr.Button(
                        text("odd_start"), variant="primary", min_width=120, elem_id="odd-start"
                    )
                    example = gr.Button(text("example"), min_width=90, elem_id="odd-example")
            with gr.Column(scale=3, min_width=280):
                result = gr.HTML(
                    js_on_load="element.addEventListener('click', (event) => {"
                    " const chosen = event.target.closest('[data-axis]');"
                    " if (chosen) trigger('click', { axis: Number(chosen.dataset.axis) }); });",
                    elem_id="odd-result",
                )
        photo.view.input(self._drawn, None, [box], queue=False, **private).then(
            self._compare, [box], [result], **busy
        )
        photo.taken.then(lambda: "", None, [box], **private).then(self._compare, [box], [result], **busy)
        gr.on([start.click, box.submit], self._compare, [box], [result], **busy)
        result.click(self._other_axis, [box], [result], **busy)
        example.click(photo.take_example, None, [photo.view], **private).then(
            lambda: "", None, [box], **private
        ).then(self._compare, [box], [result], **busy)

    def _drawn(self, event: gr.EventData) -> str:
        """Return the box that was drawn on the photo, as it is typed."""
        return str(event.box)

    def _compare(self, box: str, request: gr.Request) -> Any:
        return self._find(box, None, request)

    def _other_axis(self, box: str, event: gr.EventData, request: gr.Request) -> Any:
        return self._find(box, int(event.axis), request)

    def _find(self, box: str, axis: int | None, request: gr.Request) -> Any:
        from llava.oddone import find_odd
        from llava.serve.page.odd_view import pictures_of, show_odd

        say = words_for(request)
        try:
            visitor = self._visitors.of(request)
            photo = visitor.photos.get(PHOTO)
            if photo is None:
                raise InputError(say("no_photo"))
            found = find_odd(photo.image, parse_typed_box(box), axis)
        except InputError as error:
            gr.Warning(html.escape(str(error)))
            return gr.skip()
        pictures = pictures_of(found, photo.image)
        addresses = self._visitors.show(visitor, RESULT, list(pictures.values()))
        return show_odd(found, axis or 0, photo.address, dict(zip(pictures, addresses, strict=True)), say)


def parse_typed_box(typed: str) -> tuple[float, float, float, float] | None:
    """Return a box as it is typed: four numbers; None for nothing.

    Raises:
        InputError: it is something else.
    """
    if not typed.strip():
        return None
    try:
        x1, y1, x2, y2 = (float(part) for part in typed.replace(",", " ").split())
    except ValueError:
        raise InputError(f"the box {typed!r} is not four numbers: x1, y1, x2, y2 in pixels") from None
    return x1, y1, x2, y2
