"""What is painted is what the encoders read: at most 77 tokens, cut where a phrase or a word ends."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.painting.diffusion_model import DiffusionModel
from llava.painting.fitting import MAX_TOKENS, count_tokens, fit_prompt, fits
from tests.support.clip_words import clip_tokenizer

TOKENIZERS = [clip_tokenizer(), clip_tokenizer("a photo of broken insulator glass disc fog on the")]
TEXTS = {
    "English": "a photo of the broken glass disc, fog on 0.5 well-known (hills) sky. 1,000 volts",
    "Korean": "깨진 유리 애자 디스크, 안개 낀 산 송전탑의 사진. 흐린 하늘 아래, 녹슨 금속",
    "Russian": "разбитый стеклянный изолятор, туман на холмах. пасмурное небо; ржавый металл, мох",
    "Chinese": "破损的玻璃绝缘子， 雾 山上的铁塔。 阴天、 生锈的金属， 苔藓",
}
WORDS = {language: text.split() for language, text in TEXTS.items()}
STOPS = set(",.;:!?…、。，；：！？｡､")
SPACED = ("English", "Korean", "Russian")


def prompts(language: str) -> st.SearchStrategy[str]:
    gaps = ["", "", ", ", "。"] if language == "Chinese" else [" ", " ", "  ", ", ", ".\n"]
    pieces = st.lists(st.tuples(st.sampled_from(WORDS[language]), st.sampled_from(gaps)), max_size=90)
    return pieces.map(lambda found: "".join(word + gap for word, gap in found))


@pytest.mark.parametrize("language", WORDS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_prompt_fits_both_encoders_and_ends_where_a_word_does(language: str, data: st.DataObject) -> None:
    prompt = data.draw(prompts(language))
    cut = fit_prompt(prompt, TOKENIZERS)
    lengths = [count_tokens(prompt, tokenizer) for tokenizer in TOKENIZERS]
    assert all(count_tokens(cut, tokenizer) <= MAX_TOKENS for tokenizer in TOKENIZERS)
    assert prompt.startswith(cut)
    if max(lengths) <= MAX_TOKENS:
        assert cut == prompt
        return
    assert cut and cut == cut.strip() and cut[-1] not in STOPS
    following = prompt[len(cut)]
    if language in SPACED:
        assert following.isspace() or following in STOPS
        assert cut.split()[-1] in {word.rstrip(",.;") for word in WORDS[language]}


@pytest.mark.parametrize("language", WORDS)
def test_no_more_would_fit_but_a_part_of_a_phrase(language: str) -> None:
    prompt = (" " if language in SPACED else "").join(WORDS[language] * 20)
    cut = fit_prompt(prompt, TOKENIZERS)
    assert prompt[len(cut) :].lstrip()[0] in STOPS
    stops = [at for at in range(len(cut) + 1, len(prompt)) if prompt[at] in STOPS and prompt[at - 1] != "0"]
    following = next(at for at in stops if prompt[at + 1 : at + 2].isspace() or language not in SPACED)
    assert not fits(prompt[:following], TOKENIZERS)


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=200))
def test_any_text_is_cut_to_a_beginning(prompt: str) -> None:
    cut = fit_prompt(prompt, TOKENIZERS)
    assert prompt.startswith(cut) and fits(cut, TOKENIZERS)


def test_the_wish_is_not_lost_for_a_comma() -> None:
    letters = [clip_tokenizer()]
    prompt = "photo, a broken disc of an insulator string between green hills below a grey sky full of rain"
    cut = fit_prompt(prompt, letters)
    assert cut.startswith("photo, a broken disc of an insulator string") and prompt[len(cut)] == " "
    assert fit_prompt("rust, fog, " + "x" * 80, letters) == "rust, fog"
    assert fit_prompt("x" * 80 + ", rust", letters) == "x" * 75
    assert fit_prompt("e\u0301" * 60, letters).endswith("\u0301")
    assert fit_prompt("", letters) == ""


def test_numbers_stay_whole() -> None:
    letters = [clip_tokenizer(limit=12)]
    assert fit_prompt("rust 0.5 1,000 12:30 fog", letters) == "rust 0.5"
    assert fit_prompt("rust, 1,000,000,000 volts", letters) == "rust"


def test_the_narrower_encoder_decides() -> None:
    wide, narrow = clip_tokenizer("broken glass disc"), clip_tokenizer()
    prompt = ", ".join(["broken glass disc"] * 12)
    assert fits(prompt, [wide]) and not fits(prompt, [narrow])
    assert fit_prompt(prompt, [wide, narrow]) == fit_prompt(prompt, [narrow, wide]) != prompt
    unbounded = clip_tokenizer(limit=10**30)
    assert fit_prompt(prompt, [unbounded]) == fit_prompt(prompt, [narrow])


def test_a_models_own_tokenizers_count(model: DiffusionModel) -> None:
    cut = fit_prompt("a broken disc, " * 20, model.tokenizers)
    assert cut.endswith("a broken disc") and fits(cut, model.tokenizers)
    assert not fits(cut + ", a broken disc", model.tokenizers)
