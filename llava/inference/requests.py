"""What goes into the engine, runs in its batch and comes out: requests, branches, results.

Question (a line of the question file) -> Request -> Branch -> Result -> Answer (a line of the answers file)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llava.conversation import ChatTurns
from llava.inference.grammar import Grammar
from llava.inference.sampling import AnswerText, SamplingOptions, TokenLogprobs
from llava.processing.vision import ImageInput

FinishReason = Literal["stop", "length", "cancelled", "error"]
"""The model or a stop string ended the answer; its longest length did; its asker did; it cannot be given."""


@dataclass(frozen=True)
class Request:
    """A question to the engine. Requests that hold the same image *object* share its prefix in the KV cache.

    `<image>` in the text marks where an image goes; without any mark the images come first, each on a line of
    its own, as LLaVA asks. `choices` are answers to give a probability for. `history` are the turns before
    the question, oldest first; the first of `images` belong to the marks in them. `system` replaces the
    template's own text before the first question.
    """

    question_id: str | int
    text: str
    images: Sequence[ImageInput] = ()
    choices: Sequence[str] | None = None
    history: ChatTurns = ()
    system: str | None = None


@dataclass(eq=False)
class Branch:
    """A request in the batch: its prompt, and its answer so far."""

    request: Request
    order: int
    """The request's position among those of the call."""
    options: SamplingOptions
    prompt_ids: list[int] = field(default_factory=list)
    prompt_keys: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """What each column of the KV cache would hold (encoding.py): equal keys, equal columns."""
    image_ends: list[int] = field(default_factory=list)
    """How many of the prompt's tokens reach to the end of each image."""
    prefix_length: int = 0
    """How many of them are read as the prefix: those to the end of the last image, or more."""
    choice_ids: list[list[int]] = field(default_factory=list)
    """The supervised tokens of each choice."""
    max_new_tokens: int = 0
    kept: bool = False
    """Whether the prefix store keeps the prompt and the answer, for the conversation's next question."""
    once: bool = False
    """Whether its images will not be asked about again: the prefix store does not keep them."""
    answer_text: AnswerText | None = None
    """Decodes the answer as it comes, for stop strings and streams; None where there is neither."""
    grammar: Grammar | None = None
    """What the answer is held to, where the options have a JSON schema."""
    generator: Random = field(default_factory=Random)
    owner: int = 0
    """The branch's number in the KV cache, from 1."""
    answer_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    """Of the answer's tokens, where the options ask for them."""
    choice_scores: list[float] = field(default_factory=list)
    """The log-probability of each choice."""
    cached_tokens: int = 0
    """How many of the prompt's tokens were copied from the prefix store."""
    finish_reason: FinishReason | None = None
    error: str | None = None
    """Why there is no answer, or no whole one."""

    @property
    def finished(self) -> bool:
        """Whether the answer has ended, in whatever way."""
        return self.finish_reason is not None

    @property
    def tokens(self) -> list[int]:
        """The prompt and the answer so far."""
        return self.prompt_ids + self.answer_ids

    @property
    def unscored_choices(self) -> list[list[int]]:
        """The choices, until they have been scored."""
        return [] if self.choice_scores else self.choice_ids

    @cached_property
    def prefix_key(self) -> tuple[object, ...]:
        """Equal for branches that share a prefix: the same images, and the same tokens up to the last one."""
        if not self.prefix_length:
            return (id(self),)
        return (self.prompt_keys[: self.prefix_length].tobytes(),)

    @property
    def own_length(self) -> int:
        """How many tokens it has after the prefix: the rest of the prompt, and the answer so far."""
        return len(self.prompt_ids) - self.prefix_length + len(self.answer_ids)

    def fail(self, error: str) -> None:
        """End the branch with an error."""
        self.finish_reason, self.error = "error", error


@dataclass(frozen=True)
class Result:
    """An answer from the engine.

    `choices` maps each choice to its probability among them; `error` says why there is no answer, or only the
    beginning of one. `cached_tokens` of the `prompt_tokens` were not read, because the prefix store had them.
    """

    question_id: str | int
    text: str
    choices: dict[str, float] | None = None
    finish_reason: FinishReason = "stop"
    error: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()

    @property
    def truncated(self) -> bool:
        """Whether `max_new_tokens` or the model's context ended the answer."""
        return self.finish_reason == "length"
