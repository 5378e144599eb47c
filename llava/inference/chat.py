"""A conversation with memory: an image is read once, and each turn only what is new."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from llava.common.errors import InputError
from llava.common.records import IMAGE_PLACEHOLDER, question_text
from llava.conversation import Speaker
from llava.inference.batching import ContinuousBatch
from llava.inference.encoding import make_branch, make_result, request_turns
from llava.inference.live import Handle, LiveEngine
from llava.inference.model_runner import ModelRunner
from llava.inference.prefix_store import PrefixStore
from llava.inference.requests import Request, Result
from llava.inference.sampling import SamplingOptions
from llava.processing.vision import ImageInput, Pixels, image_size

_ONE_TOKEN = SamplingOptions(max_new_tokens=1)


class _Shown:
    """An image of the conversation; its pixel values are made once, alone and among others (OneVision)."""

    def __init__(self, image: ImageInput) -> None:
        self._image = image
        self._pixels: dict[bool, Pixels] = {}

    def pixels(self, runner: ModelRunner, alone: bool) -> Pixels:
        if isinstance(self._image, Pixels):
            return self._image
        if alone not in self._pixels:
            self._pixels[alone] = runner.processor.pixels(self._image, alone=alone)
        return self._pixels[alone]


@dataclass
class _Turn:
    """One turn of the conversation; `text` has an `<image>` mark for each of `images`."""

    speaker: Speaker
    text: str
    images: tuple[_Shown, ...] = ()


class Talk(ABC):
    """The turns of a conversation about images; each kind of talk gets its answers elsewhere.

    When the conversation exceeds the model's context, the oldest exchanges are dropped and counted in
    `forgotten`; the images stay.
    """

    def __init__(self, runner: ModelRunner) -> None:
        """Start an empty conversation with the model that `runner` runs; several talks may share it."""
        self.runner = runner
        self._turns: list[_Turn] = []
        self._pending_images: tuple[_Shown, ...] = ()
        self.reset()

    def reset(self, *, keep_image: bool = False) -> None:
        """Drop all turns and images; with `keep_image` all but the last image.

        That one goes with the next question. Where the conversation began with it, it is not read again.
        """
        images = [image for turn in self._turns for image in turn.images] + [*self._pending_images]
        self._turns = []
        self._pending_images = tuple(images[-1:]) if keep_image else ()
        self._asked = 0  # questions, also those taken back: asking again draws another answer
        self._stopped = False
        self.forgotten = 0

    def undo(self) -> str | None:
        """Take back the last question and its answer; images that went with it go with the next one.

        Returns:
            The question, None where there is none to take back.
        """
        if not self._turns:
            return None
        question = self._turns[-2]
        self._turns = self._turns[:-2]
        self._pending_images = (*question.images, *self._pending_images)
        return question.text.removeprefix(f"{IMAGE_PLACEHOLDER}\n" * len(question.images))

    @property
    def history(self) -> list[tuple[Speaker, str]]:
        """The turns so far, with `<image>` marks, oldest first."""
        return [(turn.speaker, turn.text) for turn in self._turns]

    @property
    def prompt(self) -> str:
        """The text of the conversation so far, as the model reads it."""
        turns = self.history
        return self.runner.loaded.template.text(turns, generation_prompt=len(turns) % 2 == 1)

    def add_image(self, image: ImageInput) -> None:
        """Add an image that goes with the next question."""
        self._pending_images += (_Shown(image),)

    def stop(self) -> None:
        """End the answer that is being streamed after its current token; what was streamed is kept."""
        self._stopped = True

    def probabilities_alone(self, text: str, choices: Sequence[str]) -> dict[str, float] | None:
        """Ask about the picture that was shown last as if nothing had been said and no other shown before.

        The talk stays as it is.

        Returns:
            How probable each choice is as the answer; None where the talk has no picture.

        Raises:
            InputError: it cannot be asked.
        """
        shown = [image for turn in self._turns for image in turn.images]
        if not shown:
            return None
        pixels = shown[-1].pixels(self.runner, alone=True)
        result = self._answer_aside(Request("aside", text, [pixels], tuple(choices)))
        if result.error is not None:
            raise InputError(result.error)
        return result.choices

    def _ask(self, text: str, options: SamplingOptions) -> Generator[str, None, None]:
        """Ask a question and stream the answer in pieces of text.

        However the stream ends (finished, `stop()`, closed, an interrupt in the middle), the talk goes on: a
        partial answer is closed and kept; a question interrupted before its first piece is taken back.

        Raises:
            InputError: the question does not fit in the context or the memory even alone.
        """
        self._stopped = False
        question = _Turn("human", question_text(text, len(self._pending_images)), self._pending_images)
        earlier = list(self._turns)
        self._turns.append(question)
        self._pending_images = ()
        answer = ""
        completed = False
        try:
            for piece in self._stream(self._make_request(options), options):
                answer += piece
                yield piece
            completed = True
        finally:
            if completed or answer:
                self._turns.append(_Turn("gpt", answer))
            else:
                self._turns, self._pending_images = earlier, question.images

    def _make_request(self, options: SamplingOptions) -> Request:
        """Return the last turn as a question, after dropping the oldest exchanges until there is room for it
        and its answer."""
        context = self.runner.context_len
        reserved = min(options.max_new_tokens, context // 4)
        self._asked += 1
        while True:
            images = [image for turn in self._turns for image in turn.images]
            pixels = [image.pixels(self.runner, alone=len(images) == 1) for image in images]
            request = Request(self._asked, self._turns[-1].text, pixels, history=self.history[:-1])
            if len(self._turns) == 1 or self._count_tokens(request) + reserved <= context:
                return request
            question, _, following, *rest = self._turns
            marks = f"{IMAGE_PLACEHOLDER}\n" * len(question.images)
            first = _Turn("human", marks + following.text, (*question.images, *following.images))
            self._turns = [first, *rest]
            self.forgotten += 1

    @abstractmethod
    def _count_tokens(self, request: Request) -> int:
        """Return how many tokens the prompt of a request has."""

    @abstractmethod
    def _stream(self, request: Request, options: SamplingOptions) -> Iterator[str]:
        """Answer a request in pieces of text, until `stop()`; InputError where it cannot be answered."""

    @abstractmethod
    def _answer_aside(self, request: Request) -> Result:
        """Answer a request that is no part of the talk with a token; what matters are its choices."""


class Chat(Talk):
    """Questions and answers about images, streamed; greedy unless a temperature is given.

    What was read is kept between turns (prefix_store.py). Each prompt is rendered as a whole and compared
    with what is kept: the common beginning (system text, image, earlier turns) is copied, and only the rest
    is read. So an answer is what a fresh reading of the whole conversation would give, whatever happened
    before.
    """

    def __init__(
        self,
        runner: ModelRunner,
        *,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float | None = None,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        """Start an empty conversation.

        Args:
            runner: Runs the model; several chats may share it.
            max_new_tokens: The longest answer, in tokens.
            temperature: As for `SamplingOptions`, and so are the others.
            top_p: Sample only among the most probable tokens that together reach this probability.
            stop: Strings that end an answer besides the template's own.
            seed: Of sampling, with a temperature.

        Raises:
            InputError: an option is out of range.
        """
        # all of the template's ends as text too: a model may spell one out character by character
        stops = (*runner.loaded.template.stop, *stop)
        self._options = SamplingOptions(max_new_tokens, temperature, top_p, 1, stops, seed)
        super().__init__(runner)

    def reset(self, *, keep_image: bool = False) -> None:
        """As `Talk.reset`; without an image that stays, what was read is dropped too."""
        super().reset(keep_image=keep_image)
        if not keep_image:
            self._store = PrefixStore(self.runner.model.device)

    def ask(self, text: str) -> Generator[str, None, None]:
        """As `Talk._ask`, with the chat's options."""
        return self._ask(text, self._options)

    def _count_tokens(self, request: Request) -> int:
        sizes = [image_size(image) for image in request.images]
        return len(self.runner.processor.encode_prompt(request_turns(request), sizes, request.system))

    def _stream(self, request: Request, options: SamplingOptions) -> Iterator[str]:
        """Answer a request; what has been read is kept even where the stream is left."""
        branch = make_branch(self.runner, request, options, streamed=True, kept=True)
        if branch.error is not None:
            raise InputError(branch.error)
        batch = ContinuousBatch(self.runner, 1, self._store)
        batch.add(branch)
        answer = branch.answer_text
        assert answer is not None
        sent = 0
        try:
            while batch.has_work:
                if self._stopped:
                    batch.cancel(branch)
                with self.runner.eval_mode():
                    batch.step()
                if piece := answer.text[sent:]:
                    sent += len(piece)
                    yield piece
        finally:
            batch.cancel(branch)
            batch.step()  # which keeps what there is of it
        if branch.error is not None:
            raise InputError(branch.error)

    def _answer_aside(self, request: Request) -> Result:
        branch = make_branch(self.runner, request, _ONE_TOKEN)
        branch.once = True  # or it would drive out what the talk goes on with
        (finished,) = ContinuousBatch(self.runner, 1, self._store).run(iter([branch]))
        return make_result(self.runner, finished)


class LiveChat(Talk):
    """A conversation that shares the live engine with others; `Chat`'s answers, with options a question.

    `stop()` may be called from any thread, all else from one at a time.
    """

    def __init__(self, live: LiveEngine, timeout: float | None = None) -> None:
        """Start an empty conversation.

        Args:
            live: Answers the questions.
            timeout: After so many seconds, waiting included, an answer ends with an error.
        """
        self._live = live
        self._timeout = timeout
        self._handle: Handle | None = None
        self._request: Request | None = None
        self.truncated = False
        """Whether the last answer reached its longest length, or the end of the context."""
        super().__init__(live.runner)

    def ask(self, text: str, options: SamplingOptions) -> Generator[str, None, None]:
        """As `Talk._ask`; also QueueFullError and EngineClosedError of `LiveEngine.submit`."""
        return self._ask(text, options)

    def stop(self) -> None:
        """As `Talk.stop`."""
        super().stop()
        if self._handle is not None:
            self._handle.cancel()

    def probabilities(self, choices: Sequence[str]) -> dict[str, float] | None:
        """Return how probable each choice is as the answer to the last question; None where it is not known.

        The question has just been read, so that only the choices are.
        """
        if self._request is None:
            return None
        request = replace(self._request, choices=tuple(choices))
        try:
            return self._answer_aside(request).choices
        except InputError:  # a choice does not begin on a token boundary
            return None

    def _count_tokens(self, request: Request) -> int:
        return self._live.count_tokens(request)

    def _stream(self, request: Request, options: SamplingOptions) -> Iterator[str]:
        self._request = request
        self._handle = handle = self._live.submit(request, options, timeout=self._timeout, kept=True)
        if self._stopped:  # before there was a handle to cancel
            handle.cancel()
        try:
            for piece in handle:
                yield piece.text
        finally:
            handle.cancel()
        result = handle.result()
        self.truncated = result.truncated
        if result.error is not None:
            raise InputError(result.error)

    def _answer_aside(self, request: Request) -> Result:
        return self._live.submit(request, _ONE_TOKEN, timeout=self._timeout).result()
