"""A prompt joins the wish and the picture's keywords, by a template or as a language model writes it."""

from __future__ import annotations

import pytest

from llava.painting.prompts import clean_answer, fill_template, write_prompt

TEMPLATE = "a photo of {wish}, {keywords}, sharp"
WISH, WORDS = "a broken disc on an insulator", ["grey", "fog"]


@pytest.mark.parametrize(
    ("template", "words", "expected"),
    [
        (TEMPLATE, WORDS, f"a photo of {WISH}, grey, fog, sharp"),
        (TEMPLATE, [], f"a photo of {WISH}, sharp"),
        ("{keywords}, {wish}", [], WISH),
        ("{wish}", WORDS, WISH),
        ("{wish} in {keywords}", WORDS, f"{WISH} in grey, fog"),
    ],
)
def test_a_template_is_filled(template: str, words: list[str], expected: str) -> None:
    assert fill_template(WISH, words, template) == expected


@pytest.mark.parametrize(
    "answer",
    [
        "a cracked shell, grey sky",
        ' "a cracked shell,  grey sky." ',
        "Prompt: a cracked shell, grey sky\n\nWish: a nest",
        "Here is the prompt:\n\n**Prompt:** a cracked shell, grey sky\nI hope it helps!",
        "<think>The wish is\nPrompt: no</think>\na cracked shell, grey sky",
        "`a cracked shell, grey sky`",
    ],
)
def test_an_answer_is_cleaned(answer: str) -> None:
    assert clean_answer(answer) == "a cracked shell, grey sky"


def test_a_language_model_writes_with_an_example_before_it() -> None:
    asked: list[str] = []

    def write(instruction: str) -> str:
        asked.append(instruction)
        return "Broken disc of an insulator on a tower, fog"

    assert write_prompt(WISH, WORDS, write, TEMPLATE) == "Broken disc of an insulator on a tower, fog"
    assert f"Wish: a photo of {WISH}, sharp\nKeywords: grey, fog\nPrompt:" in asked[0]
    assert "Example" in asked[0] and "{" not in asked[0]


def test_a_wish_that_the_model_forgets_is_put_first() -> None:
    assert write_prompt(WISH, WORDS, lambda _: "a misty hill", TEMPLATE) == f"{WISH}, a misty hill"


@pytest.mark.parametrize("answer", ["", "  \n", "<think>hm", "Prompt:"])
def test_the_template_serves_where_the_model_says_nothing(answer: str) -> None:
    filled = fill_template(WISH, WORDS, TEMPLATE)
    assert write_prompt(WISH, WORDS, lambda _: answer, TEMPLATE) == filled
