"""What goes into the engine, runs in its batch and comes out: requests, branches, results.

Question (a line of the question file) -> Request -> Branch -> Result -> Answer (a line of the answers file)
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random

from llava.inference.sampling import AnswerText
from llava.processing.vision import ImageInput


@dataclass(frozen=True)
class Request:
    """A question to the engine. Requests that hold the same image *object* share its prefix in the KV cache.

    `<image>` in the text marks where an image goes; without any mark the images come first, each on a line of
    its own, as LLaVA asks. `choices` are answers to give a probability for.
    """

    question_id: str | int
    text: str
    images: Sequence[ImageInput] = ()
    choices: Sequence[str] | None = None


@dataclass(eq=False)
class Branch:
    """A request in the batch: its prompt, and its answer so far."""

    request: Request
    order: int
    """The request's position among those of the call."""
    prompt_ids: list[int] = field(default_factory=list)
    prefix_length: int = 0
    """How many of the prompt's tokens reach to the end of the last image; 0 without one."""
    choice_ids: list[list[int]] = field(default_factory=list)
    """The supervised tokens of each choice."""
    max_new_tokens: int = 0
    error: str | None = None
    """Why there is no answer."""
    owner: int = 0
    """The branch's number within its row of the KV cache, from 1."""
    generator: Random = field(default_factory=Random)
    answer_ids: list[int] = field(default_factory=list)
    choice_scores: list[float] = field(default_factory=list)
    """The log-probability of each choice."""
    answer_text: AnswerText | None = None
    """Looks for stop strings; None where there are none to look for."""
    finished: bool = False
    truncated: bool = False

    @cached_property
    def prefix_key(self) -> tuple[object, ...]:
        """Equal for branches that share a prefix: the same images, and the same tokens up to the last one."""
        if not self.prefix_length:
            return (self.order,)
        images = (id(image) for image in self.request.images)
        ids = array(
            "q", self.prompt_ids[: self.prefix_length]
        ).tobytes()  # thousands of them: fast to compare
        return *images, ids

    @property
    def own_length(self) -> int:
        """How many tokens it has after the prefix: the rest of the prompt, and the answer so far."""
        return len(self.prompt_ids) - self.prefix_length + len(self.answer_ids)

    def restart(self) -> None:
        """Forget the answer so far and the scores of the choices."""
        self.answer_ids, self.choice_scores, self.answer_text = [], [], None
        self.finished = self.truncated = False


@dataclass(frozen=True)
class Result:
    """An answer from the engine.

    `choices` maps each choice to its probability among them; `truncated` says that `max_new_tokens` or the
    model's context ended the answer; `error` says why there is none.
    """

    question_id: str | int
    text: str
    choices: dict[str, float] | None = None
    truncated: bool = False
    error: str | None = None
