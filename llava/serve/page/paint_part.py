"""The part of a tab in which what was cut out is painted anew, as words say."""

from __future__ import annotations

import html
import random
from collections.abc import Iterator
from typing import Any

import gradio as gr

from llava.common.errors import InputError
from llava.common.html.markup import tag
from llava.common.synthetic import PROMPT, Parent
from llava.inference.live import EngineClosedError, QueueFullError
from llava.painting.diffusion import DiffusionSettings, Wish
from llava.painting.keywords import find_keywords, live_asker
from llava.painting.labels import make_files
from llava.painting.prompts import fill_template
from llava.serve.page.easel import Easel, Progress
from llava.serve.page.jobs import Job
from llava.serve.page.making import OFFERED, PHOTO, RESULT
from llava.serve.page.making_view import pictures_of, show_kept, show_made, show_progress
from llava.serve.page.visitors import Visitors
from llava.serve.page.words import Words, text, words_for

DEFAULTS = DiffusionSettings()
MOST_STEPS = 100
UPDATE_SECONDS = 0.7
SEEDS = 2**32


class PaintPart:
    """Builds the part, and answers its events. What is painted is shown where `build_result` is called."""

    def __init__(self, visitors: Visitors, easel: Easel) -> None:
        """Take the visitors, and what paints."""
        self._visitors = visitors
        self._easel = easel
        wish = gr.Textbox(
            "", label=text("make_wish"), placeholder=text("make_wish_hint"), info=text("make_wish_info"),
            max_length=500, elem_id="make-wish",
        )  # fmt: skip
        keywords = gr.Textbox(
            "", label=text("make_keywords"), placeholder=text("make_keywords_hint"), max_length=500,
            elem_id="make-keywords",
        )  # fmt: skip
        describe = gr.Button(text("make_describe"), size="sm", elem_id="make-describe")
        name = gr.Textbox(
            "",
            label=text("make_name"),
            placeholder=text("make_name_hint"),
            max_length=100,
            elem_id="make-name",
        )
        with gr.Accordion(text("settings"), open=False, elem_id="make-settings"):
            invert = gr.Checkbox(False, label=text("make_invert"), elem_id="make-invert")
            seed = gr.Textbox(
                "",
                label=text("make_seed"),
                placeholder=text("make_seed_hint"),
                max_length=10,
                elem_id="make-seed",
            )
            strength = gr.Slider(
                0.05, 1, DEFAULTS.strength, step=0.05, label=text("make_strength"),
                info=text("make_strength_info"),
            )  # fmt: skip
            steps = gr.Slider(
                1, MOST_STEPS, DEFAULTS.steps, step=1, label=text("make_steps"), elem_id="make-steps"
            )
        with gr.Row():
            self._start = gr.Button(text("make_paint"), variant="primary", min_width=90, elem_id="make-start")
            stop = gr.Button(text("stop"), min_width=90, elem_id="make-stop")
        self._asked = [wish, keywords, invert, seed, strength, steps]
        self._wish, self._name = wish, name
        stop.click(self._stop, None, None, queue=False, api_visibility="private", show_progress="hidden")
        describe.click(self._describe, None, [keywords], api_visibility="private")

    def build_result(self) -> None:
        """Build what shows the painted picture."""
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        result = gr.HTML(elem_id="make-result")
        keep = gr.Button(text("make_keep"), visible=False, elem_id="make-keep")
        kept = gr.HTML(elem_id="make-kept")
        asking = [self._start.click, self._wish.submit]
        gr.on(asking, self._paint, self._asked, [result, keep], **private)
        keep.click(self._keep, [self._name], [kept, keep], **private)

    def _paint(
        self,
        wish: str,
        keywords: str,
        invert: bool,
        seed: str,
        strength: float,
        steps: int,
        request: gr.Request,
    ) -> Iterator[list[Any]]:
        say = words_for(request)
        try:
            visitor = self._visitors.of(request)
            self._visitors.check_may_ask(visitor)
            making = visitor.making
            mask = None if making is None else making.mask  # the next click may come at any time
            if making is None or mask is None:
                raise InputError(say("make_no_mask"))
            if not wish.strip():
                raise InputError(say("make_no_wish"))
            asked = Wish(
                making.pixels,
                mask,
                fill_template(wish.strip(), [keywords.strip()] if keywords.strip() else [], PROMPT),
                self._seed(seed, say),
                bool(invert),
            )
            settings = DiffusionSettings(steps=int(steps), strength=float(strength))
            job: Job[Progress] = Job(self._easel.paint(asked, settings))
        except InputError as error:
            gr.Warning(html.escape(str(error)))
            yield [gr.skip(), gr.skip()]
            return
        visitor.jobs.append(job)
        visitor.kept.last = None
        yield [tag("p", say("make_waits"), role="status"), gr.Button(visible=False)]
        while job.wait(UPDATE_SECONDS):
            if job.state is not None:
                yield [show_progress(job.state, say), gr.skip()]
        visitor.jobs.remove(job)
        done = job.state
        if job.error is not None:
            gr.Warning(html.escape(job.error))
        if done is None or done.result is None:
            yield [tag("p", say("was_stopped"), role="status") if job.error is None else "", gr.skip()]
            return
        photo = Parent(name=making.photo.name, sha256=making.photo.sha256)
        try:
            visitor.kept.last = make_files(done.wish, done.result, photo, done.details)
        except InputError as error:
            gr.Warning(html.escape(str(error)))
        pictures = pictures_of(done.wish, done.result, self._easel.model.side)
        addresses = self._visitors.show(visitor, RESULT, pictures)
        yield [show_made(done.wish, addresses, say), gr.Button(visible=visitor.kept.last is not None)]

    def _seed(self, typed: str, say: Words) -> int:
        """Return the seed that is typed, or any where none is."""
        if not typed.strip():
            return random.randrange(SEEDS)
        if not (typed.strip().isdecimal() and int(typed) < SEEDS):
            raise InputError(say("make_bad_seed", most=SEEDS - 1))
        return int(typed)

    def _stop(self, request: gr.Request) -> None:
        for job in self._visitors.of(request).jobs:
            job.stop()

    def _describe(self, request: gr.Request) -> Any:
        """Put the model's keywords of the photo into the box, for the visitor to correct."""
        say = words_for(request)
        try:
            visitor = self._visitors.of(request)
            self._visitors.check_may_ask(visitor)
            if PHOTO not in visitor.photos:
                raise InputError(say("no_photo"))
            photo = visitor.photos[PHOTO].image
            return ", ".join(find_keywords(photo, live_asker(self._visitors.live)))
        except (InputError, QueueFullError, EngineClosedError) as error:
            gr.Warning(html.escape(str(error)))
            return gr.skip()

    def _keep(self, name: str, request: gr.Request) -> list[Any]:
        say = words_for(request)
        visitor = self._visitors.of(request)
        made = visitor.kept.last
        try:
            if made is not None and made.label is not None and not name.strip():
                raise InputError(say("make_no_name"))
            content = visitor.kept.keep(name.strip())
        except InputError as error:
            gr.Warning(html.escape(str(error)))
            return [gr.skip(), gr.Button(visible=made is not None)]
        address = self._visitors.offer(visitor, OFFERED, content, "zip")
        shown = show_kept(len(visitor.kept.pictures), address, say)
        return [shown, gr.Button(visible=False)]
