"""Chat templates ("conv modes"), the one source for training, inference and export. Torch-free.

The text is LLaVA's own, character for character (llava/conversation.py of haotian-liu/LLaVA and, for Qwen and
Llama 3, of LLaVA-VL/LLaVA-NeXT), so that original checkpoints read the prompts they know; tests/interop holds
the token ids that the original package makes of it. BOS is not part of it: the tokenizer adds it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llava.common.errors import InputError
from llava.common.records import IMAGE_PLACEHOLDER

Speaker = Literal["human", "gpt"]
ChatTurns = Sequence[tuple[Speaker, str]]


@dataclass(frozen=True)
class ConvTemplate:
    """Says how a conversation is written as text:

    `{text_prefix}{system_affixes[0]}{system}{system_affixes[1]}`
    `{question_affixes[0]}{question}{question_affixes[1]}`
    `{answer_lead}{answer_affixes[0]}{answer}{answer_affixes[1]}{answer_separator}`
    `{later_question_prefix}{question_affixes[0]}...`
    """

    name: str
    system: str
    """The text before the first question; if it is empty, its affixes are left out too."""
    system_affixes: tuple[str, str]
    question_affixes: tuple[str, str]
    """What is written before and after a question."""
    answer_lead: str
    """What ends a prompt, just before the model's answer begins."""
    answer_affixes: tuple[str, str]
    """What is written before and after an answer; the model must produce both, the second ends its turn."""
    text_prefix: str = ""
    """What the whole text begins with."""
    later_question_prefix: str = ""
    """What each question but the first begins with."""
    answer_separator: str = ""
    """What follows a finished answer and is not produced by the model."""
    images_only: bool = False
    """For pretraining the projector: of a question only its images are written."""

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings that end an answer."""
        return (self.answer_affixes[1].lstrip(" "),)

    def render(self, turns: ChatTurns, *, generation_prompt: bool = False) -> list[tuple[str, bool]]:
        """Write the conversation as pieces of text, each with whether it is supervised.

        Joined, the pieces are the whole text. The supervised ones are what the model must produce: an
        answer, the space before it and its end of turn. With `generation_prompt` the text ends where the
        model's next answer begins.

        Raises:
            InputError: the speakers do not alternate, human first, or there is no question to answer.
        """
        for position, (speaker, _) in enumerate(turns):
            expected = "human" if position % 2 == 0 else "gpt"
            if speaker != expected:
                raise InputError(f"turn {position} is from {speaker!r}, expected {expected!r}")
        if generation_prompt and len(turns) % 2 == 0:
            raise InputError("the conversation has no open question to answer")
        pieces: list[tuple[str, bool]] = [(self.text_prefix, False)]
        if self.system:
            pieces.append((self.system_affixes[0] + self.system + self.system_affixes[1], False))
        for position, (speaker, text) in enumerate(turns):
            if speaker == "human":
                if self.images_only:
                    text = IMAGE_PLACEHOLDER * text.count(IMAGE_PLACEHOLDER)
                pieces.append((self.later_question_prefix if position else "", False))
                pieces.append((self.question_affixes[0] + text + self.question_affixes[1], False))
            else:
                pieces.append((self.answer_lead, False))
                pieces.append((self.answer_affixes[0] + text + self.answer_affixes[1], True))
                pieces.append((self.answer_separator, False))
        if generation_prompt:
            pieces.append((self.answer_lead, False))
        return [piece for piece in pieces if piece[0]]

    def text(self, turns: ChatTurns, *, generation_prompt: bool = False) -> str:
        """Return the rendered pieces joined."""
        return "".join(piece for piece, _ in self.render(turns, generation_prompt=generation_prompt))

    def jinja(self, *, generation: bool = True) -> str:
        """Return a Hugging Face chat template of the same text, answers marked by `{% generation %}`.

        Messages have the roles user and assistant; a leading system message replaces the template's own
        system text. Contents are strings or lists of parts: a list's images come before its text, each as
        `<image>\\n`, or as the text of a part of another type (llama.cpp's `media_marker`) and `\\n`.
        `generation=False` leaves out the marks, which llama-cpp-python did not parse before 2026.
        """
        question = "content"
        if self.images_only:
            question = f"'{IMAGE_PLACEHOLDER}' * (content.split('{IMAGE_PLACEHOLDER}') | length - 1)"
        begin, end = ("{% generation %}", "{% endgeneration %}") if generation else ("", "")
        lead = _write(self.answer_lead)
        return "".join(
            [
                "{% if messages[0].role == 'system' %}{% set turns = messages[1:] %}",
                "{% if messages[0].content is string %}{% set system = messages[0].content %}{% else %}",
                "{% set system = messages[0].content | map(attribute='text') | join('') %}{% endif %}",
                "{% else %}{% set turns = messages %}",
                f"{{% set system = {_quote(self.system)} %}}{{% endif %}}",
                _write(self.text_prefix),
                f"{{% if system %}}{_write_around('system', self.system_affixes)}{{% endif %}}",
                "{% for message in turns %}",
                "{% if message.content is string %}{% set content = message.content %}{% else %}",
                "{% set parts = namespace(pictures='', text='') %}{% for part in message.content %}",
                "{% if part.type == 'text' %}{% set parts.text = parts.text + part.text %}{% else %}",
                "{% set parts.pictures = parts.pictures + (part.text | default('<image>')) + '\\n' %}",
                "{% endif %}{% endfor %}{% set content = parts.pictures + parts.text %}{% endif %}",
                "{% if message.role == 'user' %}",
                f"{{% if not loop.first %}}{_write(self.later_question_prefix)}{{% endif %}}"
                if self.later_question_prefix
                else "",
                _write_around(question, self.question_affixes),
                f"{{% else %}}{lead}{begin}{_write_around('content', self.answer_affixes)}{end}",
                _write(self.answer_separator),
                "{% endif %}{% endfor %}",
                f"{{% if add_generation_prompt %}}{lead}{{% endif %}}" if lead else "",
            ]
        )


def _quote(text: str) -> str:
    """Return `text` as a Jinja string literal (Jinja reads Python's and so JSON's escapes)."""
    return json.dumps(text, ensure_ascii=False)


def _write(text: str) -> str:
    """Return a Jinja block that writes `text`."""
    return f"{{{{ {_quote(text)} }}}}" if text else ""


def _write_around(expression: str, around: tuple[str, str]) -> str:
    """Return a Jinja block that writes an expression's value between two texts."""
    before, after = (_quote(text) if text else "" for text in around)
    return "{{ " + " + ".join(part for part in (before, expression, after) if part) + " }}"


def _vicuna(name: str, user: str) -> ConvTemplate:
    return ConvTemplate(
        name=name,
        system=f"A chat between a curious {user} and an artificial intelligence assistant. "
        f"The assistant gives helpful, detailed, and polite answers to the {user}'s questions.",
        system_affixes=("", " "),
        question_affixes=("USER: ", " "),
        answer_lead="ASSISTANT:",
        answer_affixes=(" ", "</s>"),
    )


def _llama_2(name: str, system: str, later_question_prefix: str) -> ConvTemplate:
    return ConvTemplate(
        name=name,
        system=system,
        system_affixes=("<<SYS>>\n", "\n<</SYS>>\n\n"),
        question_affixes=("", " [/INST]"),
        answer_lead="",
        answer_affixes=(" ", " </s>"),
        text_prefix="[INST] ",
        later_question_prefix=later_question_prefix,
    )


def _chatml(name: str, system: str, line_end: str = "") -> ConvTemplate:
    """Return a ChatML template; Qwen's has a line break after each turn, which the model does not produce."""
    end = "<|im_end|>"
    return ConvTemplate(
        name=name,
        system=system,
        system_affixes=("<|im_start|>system\n", end + line_end),
        question_affixes=("<|im_start|>user\n", end + line_end),
        answer_lead="<|im_start|>assistant\n",
        answer_affixes=("", end),
        answer_separator=line_end,
    )


_LLAVA_SYSTEM = (
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)
vicuna_v1 = _vicuna("vicuna_v1", "user")
llava_v1 = _vicuna("llava_v1", "human")
llava_v0 = ConvTemplate(
    name="llava_v0",
    system=llava_v1.system,
    system_affixes=("", "###"),
    question_affixes=("Human: ", "###"),
    answer_lead="Assistant:",
    answer_affixes=(" ", "###"),
)
llava_llama_2 = _llama_2("llava_llama_2", _LLAVA_SYSTEM, later_question_prefix="<s>[INST] ")
mistral_instruct = _llama_2("mistral_instruct", "", later_question_prefix="[INST] ")
chatml_direct = _chatml("chatml_direct", "Answer the questions.")
mpt = _chatml(
    "mpt",
    "A conversation between a user and an LLM-based AI assistant. "
    "The assistant gives helpful and honest answers.",
)
qwen_1_5 = _chatml("qwen_1_5", "You are a helpful assistant.", line_end="\n")
llava_llama_3 = ConvTemplate(
    name="llava_llama_3",
    system=_LLAVA_SYSTEM,
    system_affixes=("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
    question_affixes=("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    answer_lead="<|start_header_id|>assistant<|end_header_id|>\n\n",
    answer_affixes=("", "<|eot_id|>"),
)
plain = ConvTemplate(
    name="plain",
    system="",
    system_affixes=("", ""),
    question_affixes=("", ""),
    answer_lead="",
    answer_affixes=("", "\n"),
    images_only=True,
)

# LLaVA's names. Its `default` and `v0` are Vicuna v0 with an example conversation inside; they are left out,
# so that no name means another text here than in LLaVA.
conv_templates: dict[str, ConvTemplate] = {
    "v1": vicuna_v1,
    "vicuna_v1": vicuna_v1,
    "llava_v1": llava_v1,
    "llava_v0": llava_v0,
    "llava_llama_2": llava_llama_2,
    "mistral_instruct": mistral_instruct,
    "llava_mistral_instruct": mistral_instruct,
    "chatml_direct": chatml_direct,
    "mistral_direct": chatml_direct,
    "mpt": mpt,
    "qwen": qwen_1_5,
    "qwen_1_5": qwen_1_5,
    "qwen_2": qwen_1_5,
    "llama_3": llava_llama_3,
    "llava_llama_3": llava_llama_3,
    "plain": plain,
    "v0_plain": plain,
}
default_conversation = vicuna_v1
AUTO = "auto"
"""The `--conv-mode` that stands for the checkpoint's own (see `detect_template`)."""


def get_template(name: str) -> ConvTemplate:
    """Return the template of a conv mode; InputError with the known ones if there is none."""
    if name not in conv_templates:
        raise InputError(f"unknown conv mode {name!r}; known: {', '.join([AUTO, *conv_templates])}")
    return conv_templates[name]


def detect_template(chat_template: str | None, *, language: str, vocab_size: int) -> ConvTemplate:
    """Find a checkpoint's conv mode from its chat template or, where it has none, from its config.

    Our own chat templates are recognised exactly (so a merged folder keeps its mode), others by the markers
    of their family.

    Args:
        chat_template: The checkpoint's Jinja template, if it has one.
        language: The config's name of the language model (`llama`, `mistral`, `qwen2`, ...).
        vocab_size: 32000 for Llama 1 and 2 (Vicuna), 64000 for Yi, 128256 for Llama 3.
    """
    for template in conv_templates.values():
        if chat_template in (template.jinja(), template.jinja(generation=False)):
            return template
    qwen = language.startswith("qwen")
    if not chat_template:
        if qwen:
            return qwen_1_5
        if language in _TEMPLATE_OF_LANGUAGE:
            return _TEMPLATE_OF_LANGUAGE[language]
        return vicuna_v1 if vocab_size < 64000 else chatml_direct if vocab_size < 128000 else llava_llama_3
    if "<|start_header_id|>" in chat_template:
        return llava_llama_3
    if "<|im_start|>" in chat_template:
        if mpt.system in chat_template:
            return mpt
        return qwen_1_5 if qwen else chatml_direct
    if "[INST]" in chat_template:
        return llava_llama_2 if language == "llama" else mistral_instruct
    if "###" in chat_template and "Human:" in chat_template:
        return llava_v0
    return llava_v1 if llava_v1.system in chat_template else vicuna_v1


_TEMPLATE_OF_LANGUAGE = {"mistral": mistral_instruct, "mpt": mpt}
