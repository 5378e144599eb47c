"""The text of every conv mode: LLaVA's own, and the same again through the exported chat templates."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers import AutoTokenizer

from llava.common.errors import InputError
from llava.conversation import conv_templates, default_conversation, detect_template, get_template

TURNS = [
    ("human", "<image>\nIs there a defect?"),
    ("gpt", "Yes."),
    ("human", "What kind?"),
    ("gpt", "A broken disc."),
]

# Written out by hand from haotian-liu/LLaVA's conversation.py (qwen, llama_3: LLaVA-VL/LLaVA-NeXT's).
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
    "llava_v0": "A chat between a curious human and an artificial intelligence assistant. The assistant "
    "gives helpful, detailed, and polite answers to the human's questions.###Human: <image>\nIs there a "
    "defect?###Assistant: Yes.###Human: What kind?###Assistant: A broken disc.###",
    "mpt": "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. The assistant "
    "gives helpful and honest answers.<|im_end|><|im_start|>user\n<image>\nIs there a defect?<|im_end|>"
    "<|im_start|>assistant\nYes.<|im_end|><|im_start|>user\nWhat kind?<|im_end|><|im_start|>assistant\n"
    "A broken disc.<|im_end|>",
    "qwen": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\nIs there "
    "a defect?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nWhat kind?<|im_end|>\n"
    "<|im_start|>assistant\nA broken disc.<|im_end|>\n",
    "llama_3": "<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and vision "
    "assistant. You are able to understand the visual content that the user provides, and assist the user "
    "with a variety of tasks using natural language.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    "<image>\nIs there a defect?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nYes.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nWhat kind?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nA broken disc.<|eot_id|>",
    "plain": "<image>Yes.\nA broken disc.\n",
}


# What the chat templates of Hub models make of an image and a question (model cards and templates). The
# templates of 1.5 and 1.6-vicuna have no system text of their own: it was given as a system message. In later
# turns they differ from LLaVA's own text (docs/interop.md), which is what the models were trained on.
HUB = {
    "llava-hf/llava-1.5-7b-hf": ("vicuna_v1", "{system} USER: <image>\nWhat is it? ASSISTANT:"),
    "llava-hf/llava-v1.6-mistral-7b-hf": ("mistral_instruct", "[INST] <image>\nWhat is it? [/INST]"),
    "llava-hf/llava-v1.6-34b-hf": (
        "chatml_direct",
        "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\nWhat is it?<|im_end|>"
        "<|im_start|>assistant\n",
    ),
    "llava-hf/llama3-llava-next-8b-hf": (
        "llava_llama_3",
        "<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|><|start_header_id|>user<|end_header_id|>"
        "\n\n<image>\nWhat is it?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "llava-hf/llava-next-72b-hf": (
        "qwen_1_5",
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\nWhat is it?"
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
}


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir):
    return AutoTokenizer.from_pretrained(str(tiny_model_dir))


def messages(turns):
    return [{"role": "user" if who == "human" else "assistant", "content": text} for who, text in turns]


@pytest.mark.parametrize("mode", EXPECTED)
def test_text_is_llavas(mode):
    assert conv_templates[mode].text(TURNS) == EXPECTED[mode]


@pytest.mark.parametrize("model", HUB)
def test_a_first_question_reads_as_the_hubs_chat_template_has_it(model):
    mode, expected = HUB[model]
    template = get_template(mode)
    prompt = template.text([("human", "<image>\nWhat is it?")], generation_prompt=True)
    assert prompt == expected.format(system=template.system)


def test_v1_is_the_default():
    assert default_conversation is conv_templates["v1"] is conv_templates["vicuna_v1"]


@pytest.mark.parametrize("mode", conv_templates)
def test_prompt_is_where_the_answer_begins(mode):
    template = conv_templates[mode]
    prompt = template.text(TURNS[:3], generation_prompt=True)
    assert template.text(TURNS).startswith(prompt)
    supervised = [text for text, use in template.render(TURNS) if use]
    assert template.text(TURNS) == prompt + supervised[-1] + template.answer_separator
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


def test_chat_template_takes_images_as_parts_and_a_system_message(tokenizer):
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


def test_a_template_for_other_clients_has_no_generation_marks_and_gives_the_same_text():
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)  # llama-cpp-python's
    for template in set(conv_templates.values()):
        source = template.jinja(generation=False)
        assert "generation %}" not in source
        rendered = environment.from_string(source).render(messages=messages(TURNS))
        assert rendered == template.text(TURNS)


def test_contents_may_be_parts_in_every_role_and_hold_a_clients_own_image_mark():
    turns = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {
            "role": "user",
            "content": [{"type": "media_marker", "text": "<__media__>"}, {"type": "text", "text": "What?"}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "A disc."}]},
    ]
    source = get_template("v1").jinja(generation=False)
    rendered = ImmutableSandboxedEnvironment().from_string(source).render(messages=turns)
    assert rendered == "Be brief. USER: <__media__>\nWhat? ASSISTANT: A disc.</s>"


def recognised(chat_template, language="llama", vocab_size=32000):
    return detect_template(chat_template, language=language, vocab_size=vocab_size).name


def test_template_is_recognised_from_a_chat_template():
    for template in set(conv_templates.values()):
        assert recognised(template.jinja()) == template.name
        assert recognised(template.jinja(generation=False)) == template.name
    assert recognised("{{ '[INST] ' }}", "mistral") == "mistral_instruct"
    assert recognised("{{ '[INST] <<SYS>>' }}") == "llava_llama_2"
    assert recognised("{{ '<|im_start|>user \n' }}", "qwen2", 152000) == "qwen_1_5"
    assert recognised("{{ '<|im_start|>user\n' }}", "llama", 64064) == "chatml_direct"
    assert recognised("{{ '<|start_header_id|>' }}", "llama", 128320) == "llava_llama_3"
    assert recognised("{{ message.role.upper() + ': ' }}") == "vicuna_v1"


@pytest.mark.parametrize(
    ("language", "vocab_size", "mode"),
    [
        ("llama", 32000, "vicuna_v1"),
        ("llama", 1088, "vicuna_v1"),
        ("llama", 64000, "chatml_direct"),
        ("llama", 128256, "llava_llama_3"),
        ("mistral", 32000, "mistral_instruct"),
        ("qwen2", 151936, "qwen_1_5"),
        ("mpt", 50432, "mpt"),
    ],
)
def test_without_a_chat_template_the_config_decides(language, vocab_size, mode):
    assert recognised(None, language, vocab_size) == mode


def test_bad_turns_and_modes_are_named():
    with pytest.raises(InputError, match="turn 1 is from 'human', expected 'gpt'"):
        default_conversation.render([("human", "a"), ("human", "b")])
    with pytest.raises(InputError, match="no open question"):
        default_conversation.render(TURNS, generation_prompt=True)
    with pytest.raises(InputError, match=r"unknown conv mode 'v9'; known: .*vicuna_v1"):
        get_template("v9")
