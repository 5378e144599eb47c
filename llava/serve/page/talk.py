"""The talk of a visitor: the model's side of it, and what the page shows of it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from llava.common.boxes import Box, Frame, box_in_image, parse_boxes
from llava.common.errors import InputError
from llava.deciding.decision import Decision
from llava.deciding.in_talk import Decided, decide_in_talk
from llava.inference.chat import LiveChat
from llava.inference.live import EngineClosedError, LiveEngine, QueueFullError
from llava.inference.sampling import SamplingOptions
from llava.serve.http.limits import Limits
from llava.serve.page.pictures import ShownPictures, draw_boxes

YES_NO = (("Yes", "No"), ("yes", "no"), ("Да", "Нет"), ("да", "нет"), ("네", "아니요"), ("예", "아니요"))
"""An answer that begins with one of a pair is to a closed question."""


@dataclass
class Exchange:
    """A question and its answer, as the page shows them."""

    question: str
    photos: list[str]
    """Addresses of the pictures that came with the question."""
    answer: str = ""
    yes_no: dict[str, float] | None = None
    """The probabilities, where the question is closed."""
    decided: Decided | None = None
    """What a decision says of the photo, where the question is one that it is for."""
    marked: str | None = None
    """Address of the picture with the answer's boxes."""
    forgotten: int = 0
    """How many exchanges the model had forgotten when it answered."""
    stopped: bool = False
    cut: bool = False
    """Whether the answer reached its longest length."""
    error: str | None = None


@dataclass
class _Run:
    """An answer that is being written, by a thread of its own."""

    exchange: Exchange
    changed: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None


class PageTalk:
    """A talk whose answers are written by threads: whoever shows it only looks, and may go at any time."""

    def __init__(
        self,
        live: LiveEngine,
        pictures: ShownPictures,
        limits: Limits,
        decision: Decision | None = None,
    ) -> None:
        """Start empty.

        Args:
            live: Answers the questions.
            pictures: Keeps the pictures that are shown.
            limits: How many pictures a talk may have, and of what size together.
            decision: Says what is sound or a defect, where it is asked for.
        """
        self.exchanges: list[Exchange] = []
        self._chat = LiveChat(live, limits.max_seconds)
        self._live = live
        self._pictures = pictures
        self._limits = limits
        self._decision = decision
        self._pending: list[str] = []  # shown with the next question
        self._sizes: list[int] = []  # pixels of the talk's pictures
        self._run: _Run | None = None

    @property
    def running(self) -> bool:
        """Whether an answer is being written."""
        return self._run is not None

    @property
    def has_photo(self) -> bool:
        """Whether a picture was shown in this talk."""
        return bool(self._pending or any(exchange.photos for exchange in self.exchanges))

    def add_photo(self, image: Image.Image) -> None:
        """Add a picture that goes with the next question.

        Raises:
            InputError: the talk has too many, or too large ones.
        """
        limits, pixels = self._limits, image.width * image.height
        if len(self._sizes) >= limits.max_pictures:
            raise InputError(f"a talk has at most {limits.max_pictures} photos; clear it to go on")
        if sum(self._sizes) + pixels > 2 * limits.max_pixels:
            raise InputError(
                f"the photos of a talk have at most {2 * limits.max_megapixels} million pixels together;"
                " clear it to go on"
            )
        self._sizes.append(pixels)
        self._chat.add_image(image)
        self._pending.append(self._pictures.add(image))

    def ask(self, text: str, options: SamplingOptions) -> Exchange:
        """Ask a question; the answer is written from now on, into the exchange that is returned."""
        exchange = Exchange(text, self._pending)
        self._pending = []
        self.exchanges.append(exchange)
        self._run = run = _Run(exchange)
        run.thread = threading.Thread(target=self._answer, args=(run, options), daemon=True)
        run.thread.start()
        return exchange

    def wait(self, seconds: float) -> bool:
        """Wait until the answer has grown, at most so long; returns whether it is still being written."""
        if (run := self._run) is not None:
            run.changed.wait(seconds)
            run.changed.clear()
        return self.running

    def stop(self) -> None:
        """End the answer; what there is of it stays."""
        if (run := self._run) is not None:
            run.exchange.stopped = True
            self._chat.stop()

    def end(self) -> None:
        """Stop, and wait until the answer has ended."""
        self.stop()
        if (run := self._run) is not None and run.thread is not None:
            run.thread.join()

    def undo(self) -> str | None:
        """Take back the last question and its answer; its pictures go with the next one.

        Returns:
            The question; None where there is none, or the model has forgotten it.
        """
        self.end()
        if (question := self._chat.undo()) is None:
            return None
        exchange = self.exchanges.pop()
        self._drop_marked(exchange)
        self._pending = [*exchange.photos, *self._pending]
        return question

    def clear(self) -> None:
        """Forget all turns and pictures."""
        self.end()
        for exchange in self.exchanges:
            self._drop_marked(exchange)
            self._pictures.drop(exchange.photos)
        self._pictures.drop(self._pending)
        self.exchanges, self._pending, self._sizes = [], [], []
        self._chat.reset()

    def _drop_marked(self, exchange: Exchange) -> None:
        if exchange.marked is not None:
            self._pictures.drop([exchange.marked])

    # --- the thread that writes an answer -------------------------------------------------------------

    def _answer(self, run: _Run, options: SamplingOptions) -> None:
        exchange = run.exchange
        asked = False
        try:
            for piece in self._chat.ask(exchange.question, options):
                exchange.answer += piece
                run.changed.set()
            asked = True
            if not exchange.stopped:
                exchange.yes_no = self._yes_no(exchange.answer)
                if self._decision is not None:
                    exchange.decided = decide_in_talk(self._decision, self._chat, exchange.question)
        except (InputError, QueueFullError, EngineClosedError) as error:
            exchange.error = str(error)
        finally:
            exchange.forgotten = self._chat.forgotten
            exchange.cut = self._chat.truncated
            self._mark_boxes(exchange)
            if not exchange.answer and (exchange.error or exchange.stopped):
                # what has no answer is not part of the talk, and its pictures go with the next question
                if asked:  # stopped before the first word; after an error the chat has taken it back itself
                    self._chat.undo()
                self.exchanges.remove(exchange)
                self._pending = [*exchange.photos, *self._pending]
            self._run = None
            run.changed.set()

    def _yes_no(self, answer: str) -> dict[str, float] | None:
        first = answer.split()[0].strip(".,!;:") if answer.split() else ""
        pair = next((pair for pair in YES_NO if first in pair), None)
        return None if pair is None else self._chat.probabilities(pair)

    def _mark_boxes(self, exchange: Exchange) -> None:
        """Draw the answer's boxes on the photo that was shown last."""
        photos = [photo for shown in self.exchanges for photo in shown.photos]
        if not photos:
            return
        photo = self._pictures.image(photos[-1])
        boxes = boxes_on(exchange.answer, photo.size, self._frame)
        if boxes:
            exchange.marked = self._pictures.add(draw_boxes(photo, boxes))

    @property
    def _frame(self) -> Frame:
        """The frame of the model's boxes: the padded square of LLaVA-1.5, the whole photo of later ones."""
        return "whole" if self._live.runner.processor.vision.tokens_depend_on_size else "padded"


def boxes_on(answer: str, size: tuple[int, int], frame: Frame) -> Sequence[Box]:
    """Return the boxes in an answer as fractions of a picture of (width, height) `size`."""
    written = [box for box in parse_boxes(answer) if max(box) <= 1 and min(box) >= 0]
    inside = [box_in_image(box, *size, frame) for box in written]
    return [box for box in inside if box is not None]
