"""Where a visitor gives the photo of a tab: a drop zone, and the photo, on which a box can be drawn."""

from __future__ import annotations

import html
from contextlib import nullcontext
from importlib import resources
from typing import Any

import gradio as gr

from llava.common.errors import InputError
from llava.common.files import sha256
from llava.common.html.markup import Markup, tag
from llava.common.images import open_image
from llava.serve.page.pictures import Upload
from llava.serve.page.visitors import Photo, Visitors
from llava.serve.page.words import Words, text, words_for

EXAMPLE_PHOTO = "example.jpg"


class PhotoInput:
    """Builds a drop zone and the photo's place. The photo is the visitor's, under the name of the tab."""

    def __init__(
        self,
        visitors: Visitors,
        name: str,
        label: str = "photo",
        *,
        boxable: bool = False,
        stacked: bool = False,
    ) -> None:
        """Build it.

        Args:
            visitors: Whose photos it takes.
            name: Of the tab, or of what the photo is for.
            label: The key of the drop zone's label.
            boxable: Whether a box can be drawn on the photo, which is then an `input` of `view`.
            stacked: Whether what is built in `place` later lies over the photo.
        """
        self._visitors = visitors
        self._name = name
        self._boxable = boxable
        package = resources.files(__package__)
        self.drop = gr.File(
            label=text(label), file_types=["image"], file_count="single", height=110, elem_id=f"{name}-file"
        )
        self.place = gr.Column(elem_classes="stack") if stacked else nullcontext()
        with self.place:
            self.view = gr.HTML(
                "",
                js_on_load=package.joinpath("draw_box.js").read_text(encoding="utf-8"),
                elem_id=f"{name}-photo",
            )
        self.taken = self.drop.upload(
            self._take, [self.drop], [self.drop, self.view], api_visibility="private", show_progress="hidden"
        )

    def _take(self, path: str, request: gr.Request) -> list[Any]:
        """Read the file into memory and show it; the drop zone is empty again."""
        words = words_for(request)
        try:
            visitor = self._visitors.of(request)
            photo = self._visitors.set_photo(visitor, self._name, self._visitors.read_upload(visitor, path))
        except InputError as error:
            gr.Warning(html.escape(str(error)))
            return [None, gr.skip()]
        return [None, self._show(photo, words)]

    def take_example(self, request: gr.Request) -> Markup:
        """Take the example photo."""
        visitor = self._visitors.of(request)
        photo = self._visitors.set_photo(visitor, self._name, example_photo())
        return self._show(photo, words_for(request))

    def _show(self, photo: Photo, words: Words) -> Markup:
        width, height = photo.image.size
        image = tag(
            "img", src=photo.address, alt=words("your_photo", width=width, height=height), class_="photo",
            draggable="false", data_width=width, data_height=height,
        )  # fmt: skip
        return tag("div", image, class_="canvas boxable" if self._boxable else "canvas")


def example_photo() -> Upload:
    """Return the rendered photo that examples are about."""
    with resources.as_file(resources.files(__package__) / EXAMPLE_PHOTO) as path:
        return Upload(open_image(path), EXAMPLE_PHOTO, sha256(path))
