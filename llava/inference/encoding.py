"""Turn requests into branches, and finished branches into results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

from llava.common.errors import InputError
from llava.common.records import IMAGE_PLACEHOLDER, question_text
from llava.conversation import ChatTurns
from llava.inference.model_runner import ModelRunner
from llava.inference.requests import Branch, Request, Result
from llava.inference.sampling import AnswerText, SamplingOptions, decode_text
from llava.processing.vision import ImageInput, Pixels, Size, image_size


def make_branch(
    runner: ModelRunner,
    request: Request,
    options: SamplingOptions,
    *,
    order: int = 0,
    streamed: bool = False,
    kept: bool = False,
) -> Branch:
    """Encode a request.

    Args:
        runner: The model's.
        request: The question. Images that are `Pixels` are known by their content, others by the object.
        options: How the answer is sampled.
        order: The request's position among those of a call.
        streamed: Decode the answer as it comes, whether or not there are stop strings.
        kept: Have the prefix store keep the prompt and the answer, for the conversation's next question.

    Returns:
        The branch. That of a request that cannot be asked has its `error` set.
    """
    branch = Branch(request, order, options, kept=kept)
    try:
        turns = request_turns(request)
        sizes = [image_size(image) for image in request.images]
        ids = runner.processor.encode_prompt(turns, sizes, request.system)
        branch.prompt_ids = ids
        branch.max_new_tokens = min(options.max_new_tokens, runner.context_len - len(ids))
        if branch.max_new_tokens < 1:
            raise InputError(
                f"the question has {len(ids)} tokens, the model's context is {runner.context_len}"
            )
        branch.choice_ids = [
            _choice_ids(runner, request, turns, sizes, choice, ids) for choice in request.choices or ()
        ]
        if options.json_schema is not None:
            branch.grammar = runner.grammars.compile(options.json_schema)
    except InputError as error:
        branch.fail(str(error))
        return branch
    branch.prompt_keys, branch.image_ends = _column_keys(runner, ids, request.images, sizes)
    branch.prefix_length = branch.image_ends[-1] if branch.image_ends else 0
    branch.generator = Random(f"{options.seed}:{request.question_id}")
    if options.stop or streamed:
        branch.answer_text = AnswerText(runner.tokenizer, options.stop)
    return branch


def make_result(runner: ModelRunner, branch: Branch) -> Result:
    """Return what came of a finished branch."""
    probabilities = None
    if branch.choice_scores and branch.request.choices:
        values = torch.tensor(branch.choice_scores, dtype=torch.float64).softmax(dim=0).tolist()
        probabilities = dict(zip(branch.request.choices, values, strict=True))
    assert branch.finish_reason is not None
    return Result(
        branch.request.question_id,
        answer_so_far(runner, branch),
        probabilities,
        branch.finish_reason,
        branch.error,
        prompt_tokens=len(branch.prompt_ids),
        completion_tokens=len(branch.answer_ids),
        cached_tokens=branch.cached_tokens,
        logprobs=tuple(branch.logprobs),
    )


def answer_so_far(runner: ModelRunner, branch: Branch) -> str:
    """Return the branch's answer, as far as it has come."""
    if branch.answer_text is not None:
        return branch.answer_text.text
    return decode_text(runner.tokenizer, branch.answer_ids).strip()


def request_turns(request: Request) -> ChatTurns:
    """Return the whole conversation, with an `<image>` mark for each image.

    Raises:
        InputError: there are not as many marks as images.
    """
    earlier = sum(text.count(IMAGE_PLACEHOLDER) for _, text in request.history)
    if earlier > len(request.images):
        raise InputError(
            f"the earlier turns have {earlier} {IMAGE_PLACEHOLDER} mark(s), "
            f"but there are {len(request.images)} picture(s)"
        )
    question = question_text(request.text, len(request.images) - earlier)
    return [*request.history, ("human", question)]


def with_pixels(runner: ModelRunner, request: Request) -> Request:
    """Return the request with its images turned into pixel values, so that their content is known."""
    return replace(request, images=runner.prepare_images(request.images))


def _choice_ids(
    runner: ModelRunner,
    request: Request,
    turns: ChatTurns,
    sizes: Sequence[Size],
    choice: str,
    prompt_ids: list[int],
) -> list[int]:
    """Return the tokens of a choice as the answer to the conversation's question.

    Raises:
        InputError: they do not begin where the prompt ends, or do not fit in the context.
    """
    encoded = runner.processor.encode([*turns, ("gpt", choice)], sizes, request.system)
    if encoded.input_ids[: len(prompt_ids)] != prompt_ids:
        raise InputError(f"the choice {choice!r} does not begin on a token boundary in this template")
    if len(encoded.input_ids) > runner.context_len:
        raise InputError(f"the choice {choice!r} does not fit in the context of {runner.context_len} tokens")
    return encoded.input_ids[len(prompt_ids) :]


def _column_keys(
    runner: ModelRunner, ids: list[int], images: Sequence[ImageInput], sizes: Sequence[Size]
) -> tuple[NDArray[np.int64], list[int]]:
    """Return a key for each token, and how many tokens reach to the end of each image.

    A text token's key is its id. An image's tokens have the words of its digest in turn, as negative numbers:
    two images have equal keys only if their whole digests (SHA-256) are equal. Images that are not pixel
    values yet have the object's identity in the digest's place.
    """
    keys = np.array(ids, np.int64)
    places = np.flatnonzero(keys == runner.processor.image_token_id)
    ends: list[int] = []
    first = 0
    for image, count in zip(images, runner.processor.vision.token_counts(sizes), strict=True):
        words = np.frombuffer(image.digest, np.int64) if isinstance(image, Pixels) else np.array([id(image)])
        block = places[first : first + count]
        keys[block] = np.resize(words | np.iinfo(np.int64).min, count)
        ends.append(int(block[-1]) + 1)
        first += count
    return keys, ends
