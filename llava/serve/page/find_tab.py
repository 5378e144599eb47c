"""The tab that finds something in a photo of any size."""

from __future__ import annotations

import html
import time
from collections.abc import Iterator
from typing import Any

import gradio as gr
from PIL import Image

from llava.common.errors import InputError
from llava.common.html.markup import Markup, tag, together
from llava.inference.live import EngineClosedError, QueueFullError
from llava.search.find import search
from llava.search.picture import crop_picture, heat_picture
from llava.search.reference import describe
from llava.search.result import SearchProgress
from llava.search.windows import DEFAULT_SMALLEST
from llava.serve.page.jobs import Job
from llava.serve.page.photo_input import PhotoInput
from llava.serve.page.visitors import Visitor, Visitors
from llava.serve.page.words import Words, text, words_for

PHOTO, REFERENCE, RESULT = "find", "find-reference", "find-result"
TOP = 5
UPDATE_SECONDS = 0.7


class FindTab:
    """Builds the tab, and answers its events."""

    def __init__(self, visitors: Visitors) -> None:
        """Take the visitors, for whom it searches."""
        self._visitors = visitors
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                PhotoInput(visitors, PHOTO)
                words = gr.Textbox(
                    label=text("find_words"),
                    placeholder=text("find_words_hint"),
                    max_length=200,
                    elem_id="find-words",
                )
                ask = gr.Textbox(
                    label=text("find_ask"),
                    placeholder=text("find_ask_hint"),
                    max_length=500,
                    elem_id="find-ask",
                )
                with gr.Accordion(text("find_more"), open=False):
                    reference = PhotoInput(visitors, REFERENCE, "find_reference")
                    smallest = gr.Number(
                        DEFAULT_SMALLEST, label=text("find_smallest"), minimum=4, precision=0
                    )
                with gr.Row():
                    start = gr.Button(
                        text("find_start"), variant="primary", min_width=90, elem_id="find-start"
                    )
                    stop = gr.Button(text("stop"), min_width=90, elem_id="find-stop")
            with gr.Column(scale=3, min_width=280):
                result = gr.HTML(elem_id="find-result")
        inputs, outputs = [words, ask, smallest], [result]
        start.click(self._find, inputs, outputs, **private)
        words.submit(self._find, inputs, outputs, **private)
        stop.click(self._stop, None, None, queue=False, **private)
        reference.taken.then(self._describe, None, [words], **private)

    def _find(self, words: str, ask: str, smallest: float | None, request: gr.Request) -> Iterator[list[Any]]:
        say = words_for(request)
        try:
            visitor = self._visitors.of(request)
            self._visitors.check_may_ask(visitor)
            photo = visitor.photos.get(PHOTO)
            if photo is None:
                raise InputError(say("no_photo"))
            reference = visitor.photos.get(REFERENCE)
            steps = search(
                self._visitors.live, photo.image, words, smallest=int(smallest or DEFAULT_SMALLEST), top=TOP,
                ask=ask, reference=reference.image if reference else None,
            )  # fmt: skip
        except InputError as error:
            gr.Warning(html.escape(str(error)))
            yield [gr.skip()]
            return
        job: Job[SearchProgress] = Job(steps)
        visitor.jobs.append(job)
        yield [tag("p", say("find_begins"), role="status")]
        while job.wait(UPDATE_SECONDS):
            if job.state is not None:
                yield [self._show(visitor, photo.image, job, say)]
            time.sleep(UPDATE_SECONDS)
        visitor.jobs.remove(job)
        if job.error is not None:
            gr.Warning(html.escape(job.error))
        yield [self._show(visitor, photo.image, job, say) if job.state is not None else ""]

    def _describe(self, request: gr.Request) -> Any:
        """Put the model's words for the reference picture into the box, for the user to correct."""
        visitor = self._visitors.of(request)
        reference = visitor.photos.get(REFERENCE)
        try:
            return gr.skip() if reference is None else describe(self._visitors.live, reference.image)
        except (InputError, QueueFullError, EngineClosedError) as error:
            gr.Warning(html.escape(str(error)))
            return gr.skip()

    def _stop(self, request: gr.Request) -> None:
        for job in self._visitors.of(request).jobs:
            job.stop()

    # --- what is shown --------------------------------------------------------------------------------

    def _show(self, visitor: Visitor, photo: Image.Image, job: Job[SearchProgress], say: Words) -> Markup:
        """Return the state of a search: how far it is, the heat map, the best places."""
        progress = job.state
        assert progress is not None
        result = progress.result
        picture = heat_picture(photo, progress.heat, result)
        crops = [crop_picture(photo, found) for found in result.found]
        addresses = self._visitors.show(visitor, RESULT, [picture, *crops])
        done, total = result.windows_asked, result.windows_total
        state = say("find_state", done=done, total=total, seconds=f"{result.seconds:.1f}")
        if not job.running and not result.complete:
            state += f" · {say('was_stopped')}"
        figures = [
            _figure(number, address, found.p_yes, found.similarity, found.answer, say)
            for number, (address, found) in enumerate(zip(addresses[1:], result.found, strict=True), 1)
        ]
        return together(
            [
                tag("p", state, role="status"),
                tag("progress", value=done, max=max(total, 1), aria_label=state),
                tag("img", src=addresses[0], alt=say("heat_map", words=result.words), class_="photo"),
                tag("p", say("find_beware"), class_="note"),
                tag("div", *figures, class_="crops"),
            ]
        )


def _figure(
    number: int, address: str, p_yes: float, similarity: float | None, answer: str | None, say: Words
) -> Markup:
    name = say("place", number=number)
    facts = f"{number}. {100 * p_yes:.0f} %"
    if similarity is not None:
        facts += f" · {say('similarity')} {similarity:.2f}"
    caption = tag("figcaption", tag("b", facts), tag("span", answer) if answer else None)
    return tag("figure", tag("img", src=address, alt=name), caption)
