"""The tab that talks about photos."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

import gradio as gr

from llava.common.errors import InputError
from llava.common.html.markup import Markup, tag
from llava.inference.sampling import SamplingOptions
from llava.serve.page.photo_input import example_photo
from llava.serve.page.talk import Exchange
from llava.serve.page.visitors import Visitor, Visitors
from llava.serve.page.words import Words, text, words_for

TEMPERATURE, TOP_P = 0.1, 0.8
EXAMPLES = (
    "Describe the picture.",
    "Is the row whole? Answer yes or no.",
    "What is wrong with the row?",
    "Where is the fault of the row?",
)

Update = list[Any]


class ChatTab:
    """Builds the tab, and answers its events."""

    def __init__(self, visitors: Visitors) -> None:
        """Take the visitors, whose talks it shows."""
        self._visitors = visitors
        limits = visitors.limits
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        self.chatbot = gr.Chatbot(
            label=text("talk"),
            placeholder=text("empty"),  # type: ignore[arg-type]  # Gradio translates it
            height="58vh",
            layout="bubble",
            buttons=["copy"],
            feedback_options=None,
            allow_tags=False,
            elem_id="talk",
        )
        self.box = gr.MultimodalTextbox(
            label=text("question"),
            show_label=False,
            placeholder=text("ask_here"),  # type: ignore[arg-type]  # Gradio translates it
            sources=["upload"],
            file_types=["image"],
            file_count="multiple",
            max_plain_text_length=100_000,
            autofocus=True,
            elem_id="question",
        )
        with gr.Row(elem_classes="actions"):
            retry = gr.Button(text("retry"), size="sm", min_width=90, elem_id="retry")
            undo = gr.Button(text("undo"), size="sm", min_width=90, elem_id="undo")
            clear = gr.Button(text("clear"), size="sm", min_width=90, elem_id="clear")
        if visitors.decision is not None:
            gr.Markdown(text("decides"))
        with gr.Accordion(text("examples"), open=True, elem_id="examples"):
            with gr.Row():
                examples = [
                    gr.Button(example, size="sm", min_width=160, elem_classes="example")
                    for example in EXAMPLES
                ]
            gr.Markdown(text("example_photo"))
        with gr.Accordion(text("settings"), open=False):
            temperature = gr.Slider(
                0, 1.5, TEMPERATURE, step=0.05, label=text("temperature"), info=text("temperature_info")
            )
            top_p = gr.Slider(0.05, 1, TOP_P, step=0.05, label=text("top_p"), info=text("top_p_info"))
            longest = gr.Slider(
                1, limits.max_new_tokens, min(512, limits.max_new_tokens), step=1, label=text("max_tokens")
            )
        settings, outputs = [temperature, top_p, longest], [self.chatbot, self.box]
        self.box.submit(self._submit, [self.box, *settings], outputs, **private)
        for button, example in zip(examples, EXAMPLES, strict=True):
            button.click(self._ask_example(example), [self.box, *settings], outputs, **private)
        retry.click(self._retry, settings, outputs, **private)
        undo.click(self._undo, None, outputs, **private)
        gr.on([clear.click, self.chatbot.clear], self._clear, None, outputs, **private)
        self.box.stop(self._stop, None, None, queue=False, **private)
        # on each key, too, but then without what is typed
        without_text = "box => ({ text: '', files: box?.files ?? [] })"
        self.box.change(self._note_uploads, [self.box], None, queue=False, js=without_text, **private)

    # --- events ---------------------------------------------------------------------------------------

    def _submit(
        self, box: dict[str, Any], temperature: float, top_p: float, longest: int, request: gr.Request
    ) -> Iterator[Update]:
        yield from self._ask(box, (temperature, top_p, longest), request)

    def _ask_example(self, example: str) -> Any:
        def ask(
            box: dict[str, Any], temperature: float, top_p: float, longest: int, request: gr.Request
        ) -> Iterator[Update]:
            asked = {"text": example, "files": box["files"]}
            yield from self._ask(asked, (temperature, top_p, longest), request, with_photo=True)

        return ask

    def _ask(
        self,
        box: dict[str, Any],
        settings: tuple[float, float, int],
        request: gr.Request,
        with_photo: bool = False,
    ) -> Iterator[Update]:
        """Ask what is in the box; `with_photo`: about the example photo where there is no other."""
        words = words_for(request)
        try:
            visitor = self._visitors.of(request)
            self._visitors.check_may_ask(visitor)
            if visitor.was_wiped:
                gr.Info(words("was_wiped"))
                visitor.was_wiped = False
            for path in box["files"]:
                visitor.talk.add_photo(self._visitors.read_upload(visitor, path).image)
            if with_photo and not visitor.talk.has_photo:
                visitor.talk.add_photo(example_photo().image)
            question = box["text"].strip()
            if not question:
                raise InputError(words("no_question"))
            options = _options(*settings)
        except InputError as error:
            gr.Warning(html.escape(str(error)))
            yield [gr.skip(), gr.MultimodalTextbox({"text": box["text"], "files": []})]
            return
        yield from self._answer(visitor, question, options, words)

    def _answer(
        self, visitor: Visitor, question: str, options: SamplingOptions, words: Words
    ) -> Iterator[Update]:
        talk = visitor.talk
        exchange = talk.ask(question, options)
        yield [self._messages(visitor, words), gr.MultimodalTextbox(None, submit_btn=False, stop_btn=True)]
        while talk.wait(0.5):
            yield [self._messages(visitor, words), gr.skip()]
        typed: dict[str, Any] | None = None
        if exchange not in talk.exchanges:  # taken back, because there is no answer
            typed = {"text": question, "files": []}
        if exchange.error is not None:
            gr.Warning(html.escape(exchange.error))
        box = (
            gr.MultimodalTextbox(typed, submit_btn=True, stop_btn=False)
            if typed
            else gr.MultimodalTextbox(submit_btn=True, stop_btn=False)
        )
        yield [self._messages(visitor, words), box]

    def _retry(self, temperature: float, top_p: float, longest: int, request: gr.Request) -> Iterator[Update]:
        words = words_for(request)
        try:
            visitor = self._visitors.of(request)
            self._visitors.check_may_ask(visitor)  # before the answer is taken back
            options = _options(temperature, top_p, longest)
            question = visitor.talk.undo()
            if question is None:
                raise InputError(words("nothing_to_undo"))
        except InputError as error:
            gr.Warning(html.escape(str(error)))
            yield [gr.skip(), gr.skip()]
            return
        yield from self._answer(visitor, question, options, words)

    def _undo(self, request: gr.Request) -> Update:
        words = words_for(request)
        visitor = self._visitors.of(request)
        question = visitor.talk.undo()
        if question is None:
            gr.Info(words("nothing_to_undo"))
            return [self._messages(visitor, words), gr.skip()]
        return [self._messages(visitor, words), gr.MultimodalTextbox({"text": question, "files": []})]

    def _clear(self, request: gr.Request) -> Update:
        self._visitors.of(request).talk.clear()
        return [[], gr.MultimodalTextbox(None, submit_btn=True, stop_btn=False)]

    def _stop(self, request: gr.Request) -> None:
        self._visitors.of(request).talk.stop()

    def _note_uploads(self, box: dict[str, Any], request: gr.Request) -> None:
        """Know the files in the box, so that they are wiped when the tab is closed before they are sent."""
        visitor = self._visitors.of(request)
        for path in box["files"]:
            self._visitors.note_upload(visitor, path)

    # --- what is shown --------------------------------------------------------------------------------

    def _messages(self, visitor: Visitor, words: Words) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        number = 0
        talk = visitor.talk
        for exchange in list(talk.exchanges):
            photos = []
            for address in exchange.photos:
                number += 1
                photos.append(_photo(address, words("photo_of_talk", number=number)))
            question = "".join(photos) + _plain(exchange.question)
            messages.append({"role": "user", "content": question})
            writing = talk.running and exchange is talk.exchanges[-1]
            content = self._answer_content(exchange, writing, words)
            messages.append({"role": "assistant", "content": content})
        return messages

    def _answer_content(self, exchange: Exchange, writing: bool, words: Words) -> str:
        notes = []
        if exchange.stopped and not writing:
            notes.append(words("was_stopped"))
        if exchange.cut:
            notes.append(words("was_cut"))
        if exchange.error:
            notes.append(exchange.error)
        if exchange.forgotten:
            tokens = self._visitors.live.runner.context_len
            notes.append(words("forgotten", tokens=tokens, count=exchange.forgotten))
        parts = [_plain(exchange.answer) + (" ▍" if writing else "")]
        if exchange.yes_no is not None:
            parts.append(_bars(exchange.yes_no))
        decision = self._visitors.decision
        if exchange.decided is not None and decision is not None:
            call = tag("b", words(f"decided_{exchange.decided.call}"))
            said = f" P(yes) {exchange.decided.p_yes:.6f}. {decision.guarantee}"
            parts.append(tag("p", call, said, class_="decided"))
        if exchange.marked is not None:
            parts.append(_photo(exchange.marked, words("marked_photo")))
        parts += [tag("p", note, class_="note") for note in notes]
        return "\n\n".join(parts)


def _options(temperature: float, top_p: float, longest: int) -> SamplingOptions:
    return SamplingOptions(int(longest), float(temperature), float(top_p) if temperature > 0 else None)


def _photo(address: str, description: str) -> Markup:
    return tag("img", src=address, alt=description, class_="photo")


def _plain(words: str) -> str:
    """Escape what HTML and Markdown would take for markup, but for what answers are laid out with."""
    return re.sub(r"([\\`$\[\]])", r"\\\1", html.escape(words, quote=False))


def _bars(probabilities: dict[str, float]) -> Markup:
    rows = [
        tag(
            "span",
            tag("b", f"{choice} {100 * value:.0f} %"),
            tag("i", style=f"width:{100 * value:.1f}%"),
            class_="choice",
        )
        for choice, value in probabilities.items()
    ]
    return tag("span", *rows, class_="choices")
