"""Composes the prompt of a picture from what it shall show and keywords of what it shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

Writer = Callable[[str], str]
"""A language model: gets an instruction, returns its answer."""

INSTRUCTION: Final = """\
You write prompts for an image generator. Join the wish and the keywords of a photo into one prompt: short
phrases separated by commas, in English, at most 50 words. Begin with the wish in its own words. Say only what
can be seen. Answer with the prompt alone.

Example
Wish: a rusty bolt on a bridge
Keywords: grey, steel, rain, river
Prompt: a rusty bolt on a bridge, wet grey steel, brown rust stains around it, rain, a river behind it

Wish: {wish}
Keywords: {keywords}
Prompt:"""

_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_LABEL = re.compile(r"^(?:\W*)(?:prompt|answer|output)\W*:\W*", re.IGNORECASE)
_QUOTES = "\"'`*“”«» "


def fill_template(wish: str, keywords: Sequence[str], template: str) -> str:
    """Return a template with its `{wish}` and `{keywords}` filled; without keywords their comma goes too.

    Args:
        wish: What the picture shall show.
        keywords: Of what it shows.
        template: Has `{wish}` in it; may have `{keywords}`.
    """
    pieces = template.split("{keywords}")
    parts = [", ".join(keywords).join(pieces)] if keywords else [piece.strip(", ") for piece in pieces]
    return ", ".join(part for part in parts if part).replace("{wish}", wish)


def write_prompt(wish: str, keywords: Sequence[str], write: Writer, template: str) -> str:
    """Let a language model compose the prompt.

    Args:
        wish: What the picture shall show.
        keywords: Of what it shows.
        write: Asks the model.
        template: As for `fill_template`; what it says around the wish is wished for, too.

    Returns:
        What it answers, without what is no prompt; the filled template where nothing is left of that, and
        with the wish before it where it forgot that.
    """
    filled = fill_template(wish, (), template)
    asked = INSTRUCTION.replace("{wish}", filled).replace("{keywords}", ", ".join(keywords) or "none")
    prompt = clean_answer(write(asked))
    if not prompt:
        return fill_template(wish, keywords, template)
    missing = {word for word in _words(wish) if len(word) > 3} - set(_words(prompt))
    return f"{wish}, {prompt}" if missing else prompt


def clean_answer(text: str) -> str:
    """Return the prompt in a language model's answer: without its thoughts, labels, quotes and remarks."""
    lines = [line.strip() for line in _THOUGHTS.sub("", text).splitlines()]
    labelled = [index for index, line in enumerate(lines) if _LABEL.match(line)]
    for line in lines[labelled[0] if labelled else 0 :]:
        said = _LABEL.sub("", line).strip(_QUOTES)
        remark = said.endswith(":")  # "Here is the prompt:"
        if said and not remark:
            return " ".join(said.rstrip(".").split())
    return ""


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
