"""The text of every conv mode: LLaVA's own, and the same again through the exported chat templates."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from llava.conversation import conv_templates, default_conversation, get_template, template_of_chat
from llava.errors import InputError

TURNS = [
    ("human", "<image>\nIs there a defect?"),
    ("gpt", "Yes."),
    ("human", "What kind?"),
    ("gpt", "A broken disc."),
]

# Written out by hand from haotian-liu/LLaVA's conversation.py.
EXPECTED = {
    "v1": "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. USER: <image>\nIs there a defect? "
    "ASSISTANT: Yes.</s>USER: What kind? ASSISTANT: A broken disc.</s>",
    "llava_v1": "A chat between a curious human and an artificial intelligence assistant. The assistant "
    "gives helpful, detailed, and polite answers to the human's questions. USER: <image>\nIs there a defect? "
    "ASSISTANT: Yes.</s>USER: What kind? ASSISTANT: A broken disc.</s>",
    "llava_llama_2": "[INST] <<SYS>>\nYou are a helpful language and vision assistant. You are able to "
    "understand the visual content that the user provides, and assist the user with a variety of tasks using "
    "natural language.\n<</SYS>>\n\n<image>\nIs there a defect? [/INST] Yes. </s><s>[INST] What kind? "
    "[/INST] A broken disc. </s>",
    "mistral_instruct": "[INST] <image>\nIs there a defect? [/INST] Yes. </s>[INST] What kind? [/INST] "
    "A broken disc. </s>",
    "chatml_direct": "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\nIs there "
    "a defect?<|im_end|><|im_start|>assistant\nYes.<|im_end|><|im_start|>user\nWhat kind?<|im_end|>"
    "<|im_start|>assistant\nA broken disc.<|im_end|>",
    "plain": "<image>Yes.\nA broken disc.\n",
}


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir):
    return AutoTokenizer.from_pretrained(str(tiny_model_dir))


def messages(turns):
    return [{"role": "user" if who == "human" else "assistant", "content": text} for who, text in turns]


@pytest.mark.parametrize("mode", EXPECTED)
def test_text_is_llavas(mode):
    assert conv_templates[mode].text(TURNS) == EXPECTED[mode]


def test_v1_is_the_default():
    assert default_conversation is conv_templates["v1"] is conv_templates["vicuna_v1"]


@pytest.mark.parametrize("mode", conv_templates)
def test_prompt_is_where_the_answer_begins(mode):
    template = conv_templates[mode]
    prompt = template.text(TURNS[:3], generation_prompt=True)
    assert template.text(TURNS).startswith(prompt)
    supervised = [text for text, use in template.render(TURNS) if use]
    between = template.sep2 if template.style == "mpt" else ""
    assert template.text(TURNS) == prompt + supervised[-1] + between
    assert [any(text.endswith(stop) for stop in template.stop) for text in supervised] == [True, True]


@pytest.mark.parametrize("mode", conv_templates)
@settings(max_examples=20)
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=5))
def test_chat_template_gives_the_same_text(tokenizer, mode, texts):
    template = conv_templates[mode]
    turns = [("gpt" if position % 2 else "human", text) for position, text in enumerate(texts)]
    is_open = len(turns) % 2 == 1
    rendered = tokenizer.apply_chat_template(
        messages(turns),
        chat_template=template.jinja(),
        tokenize=False,
        add_generation_prompt=is_open,
    )
    assert rendered == template.text(turns, generation_prompt=is_open)


def test_chat_template_takes_pictures_as_parts_and_a_system_message(tokenizer):
    template = get_template("v1")
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image"}]},
    ]
    rendered = tokenizer.apply_chat_template(
        turns, chat_template=template.jinja(), tokenize=False, add_generation_prompt=True
    )
    assert rendered == "Be brief. USER: <image>\nWhat? ASSISTANT:"


def test_generation_marks_cover_the_supervised_text(tokenizer):
    template = get_template("v1")
    encoded = tokenizer.apply_chat_template(
        messages(TURNS), chat_template=template.jinja(), return_dict=True, return_assistant_tokens_mask=True
    )
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    assert tokenizer.decode([token for token, use in pairs if use]) == "Yes.</s> A broken disc.</s>"


def test_template_is_recognised_from_a_chat_template():
    for template in set(conv_templates.values()):
        assert template_of_chat(template.jinja()) is template
    assert template_of_chat(None).name == "vicuna_v1"
    assert template_of_chat("{{ '[INST] ' }}").name == "mistral_instruct"


def test_bad_turns_and_modes_are_named():
    with pytest.raises(InputError, match="turn 1 is from 'human', expected 'gpt'"):
        default_conversation.render([("human", "a"), ("human", "b")])
    with pytest.raises(InputError, match="no open question"):
        default_conversation.render(TURNS, generation_prompt=True)
    with pytest.raises(InputError, match=r"unknown conv mode 'v9'; known: .*vicuna_v1"):
        get_template("v9")
