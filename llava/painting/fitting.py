"""Cuts a prompt to what a diffusion model's text encoders read, where a phrase or a word ends.

What exceeds 77 tokens is not read, without a word: so a prompt is cut where that does least harm, and what is
kept in the facts is what was painted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

MAX_TOKENS = 77  # CLIP's, with those of begin and end
_WORTH = 0.5
"""Share of what fits that a cut at a phrase's end has to keep: else the wish itself could be lost."""
_ENDS = frozenset(",.;:!?…\n、。，；：！？｡､")
_UNSPACED = re.compile(
    "[\u3005-\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Kana and Han, which are written without spaces: every one of them ends a word."""


def count_tokens(prompt: str, tokenizer: Any) -> int:
    """Return how many tokens a prompt has, with those of begin and end."""
    return len(tokenizer(prompt, truncation=False, verbose=False).input_ids)


def fits(prompt: str, tokenizers: Sequence[Any]) -> bool:
    """Tell whether each of the encoders reads a prompt to its end."""
    return all(
        count_tokens(prompt, tokenizer) <= min(tokenizer.model_max_length, MAX_TOKENS)
        for tokenizer in tokenizers
    )


def fit_prompt(prompt: str, tokenizers: Sequence[Any]) -> str:
    """Cut a prompt to what all encoders read.

    Args:
        prompt: In any language.
        tokenizers: Those of the diffusion model, one or two (`DiffusionModel.tokenizers`).

    Returns:
        The prompt as it is if it fits; else its beginning, which ends before a comma, full stop or the like,
        or where a word ends if that would lose too much. Of a first word that is too long alone, as many
        letters as fit.
    """
    if fits(prompt, tokenizers):
        return prompt
    words = _longest(prompt, _word_ends(prompt), tokenizers)
    phrases = _longest(prompt[: len(words) + 1], _phrase_ends(prompt[: len(words) + 1]), tokenizers)
    if len(phrases) >= _WORTH * len(words) and phrases:
        return phrases
    return words or _longest(prompt, _letter_ends(prompt), tokenizers)


def _longest(prompt: str, ends: Iterator[int], tokenizers: Sequence[Any]) -> str:
    """Return the longest beginning that fits, of those that end at `ends` (ascending); "" for none.

    From the shortest on, since a long text takes long to count.
    """
    longest = ""
    for end in ends:
        beginning = prompt[:end]
        if not fits(beginning, tokenizers):
            break
        longest = beginning
    return longest


def _letter_ends(prompt: str) -> Iterator[int]:
    """Yield where letters end, with the marks that belong to them."""
    return (
        end
        for end in range(1, len(prompt) + 1)
        if end == len(prompt) or not unicodedata.category(prompt[end]).startswith("M")
    )


def _word_ends(prompt: str) -> Iterator[int]:
    """Yield where words end: before white space, a phrase's end, and by each letter of those unspaced."""
    for end in _letter_ends(prompt):
        last, following = prompt[end - 1], prompt[end : end + 1]
        if last.isspace() or last in _ENDS:
            continue
        if (
            not following
            or following.isspace()
            or _UNSPACED.match(last)
            or _UNSPACED.match(following)
            or _ends_phrase(prompt, end)
        ):
            yield end


def _phrase_ends(prompt: str) -> Iterator[int]:
    """Yield where phrases end, without the signs that end them and spaces before these."""
    for at in range(1, len(prompt)):
        end = at
        while end and (prompt[end - 1].isspace() or prompt[end - 1] in _ENDS):
            end -= 1
        if end and _ends_phrase(prompt, at):
            yield end


def _ends_phrase(prompt: str, at: int) -> bool:
    """Tell whether the sign at an index ends a phrase: not that of 0.5, 1,000 or 12:30."""
    within_number = prompt[at - 1].isdigit() and prompt[at + 1 : at + 2].isdigit()
    return prompt[at] in _ENDS and not within_number
