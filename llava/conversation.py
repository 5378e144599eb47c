"""Chat templates ("conv modes"): one source for training, inference and export. Torch-free.

The text is LLaVA's own, character for character (llava/conversation.py of haotian-liu/LLaVA and, for Qwen and
Llama 3, of LLaVA-VL/LLaVA-NeXT), so prompts mean the same to original checkpoints; tests/interop holds the
token ids that the original package makes of it. BOS is not part of it: the tokenizer adds it.
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
    """How a conversation becomes text:

    `{start}{around_system[0]}{system}{around_system[1]}` `{question[0]}{q}{question[1]}`
    `{lead}{answer[0]}{a}{answer[1]}{between}` `{again}{question[0]}...`
    """

    name: str
    system: str
    """What is said before the first question; where it is empty, nothing is written around it either."""
    around_system: tuple[str, str]
    question: tuple[str, str]
    """What stands before and after a question."""
    lead: str
    """Where a prompt ends and the model's answer begins."""
    answer: tuple[str, str]
    """What stands before and after an answer; the model must produce both, the second ends its turn."""
    start: str = ""
    """What the whole text starts with."""
    again: str = ""
    """What each later question starts with."""
    between: str = ""
    """What follows an ended answer and is not the model's to say."""
    captions: bool = False
    """For pretraining the projector: of a question only its pictures are written."""

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings that end an answer."""
        return (self.answer[1].lstrip(" "),)

    def render(self, turns: ChatTurns, *, generation_prompt: bool = False) -> list[tuple[str, bool]]:
        """The conversation as pieces of text, each with whether it is supervised.

        Joined, the pieces are the whole text. The supervised ones are what the model must produce: an
        answer, the space that leads it and its end of turn. With `generation_prompt` the text ends where
        the model's next answer begins. InputError if the speakers do not alternate, human first.
        """
        for position, (speaker, _) in enumerate(turns):
            expected = "human" if position % 2 == 0 else "gpt"
            if speaker != expected:
                raise InputError(f"turn {position} is from {speaker!r}, expected {expected!r}")
        if generation_prompt and len(turns) % 2 == 0:
            raise InputError("the conversation has no open question to answer")
        pieces: list[tuple[str, bool]] = [(self.start, False)]
        if self.system:
            pieces.append((self.around_system[0] + self.system + self.around_system[1], False))
        for position, (speaker, text) in enumerate(turns):
            if speaker == "human":
                asked = IMAGE_PLACEHOLDER * text.count(IMAGE_PLACEHOLDER) if self.captions else text
                pieces.append((self.again if position else "", False))
                pieces.append((self.question[0] + asked + self.question[1], False))
            else:
                pieces.append((self.lead, False))
                pieces.append((self.answer[0] + text + self.answer[1], True))
                pieces.append((self.between, False))
        if generation_prompt:
            pieces.append((self.lead, False))
        return [piece for piece in pieces if piece[0]]

    def text(self, turns: ChatTurns, *, generation_prompt: bool = False) -> str:
        """The rendered pieces joined."""
        return "".join(piece for piece, _ in self.render(turns, generation_prompt=generation_prompt))

    def jinja(self, *, generation: bool = True) -> str:
        """The same text as a Hugging Face chat template, answers marked by `{% generation %}`.

        Messages have the roles user and assistant; a leading system message replaces the template's own
        system text. Contents are strings or lists of parts: a list's pictures come before its text, each as
        `<image>\\n`, or as the text of a part of another type (llama.cpp's `media_marker`) and `\\n`.
        `generation=False` leaves out the marks, which llama-cpp-python did not parse before 2026.
        """
        asked = "content"
        if self.captions:
            asked = f"'{IMAGE_PLACEHOLDER}' * (content.split('{IMAGE_PLACEHOLDER}') | length - 1)"
        mark, unmark = ("{% generation %}", "{% endgeneration %}") if generation else ("", "")
        lead = _write(self.lead)
        return "".join(
            [
                "{% if messages[0].role == 'system' %}{% set turns = messages[1:] %}",
                "{% if messages[0].content is string %}{% set system = messages[0].content %}{% else %}",
                "{% set system = messages[0].content | map(attribute='text') | join('') %}{% endif %}",
                "{% else %}{% set turns = messages %}",
                f"{{% set system = {_quote(self.system)} %}}{{% endif %}}",
                _write(self.start),
                f"{{% if system %}}{_write_around('system', self.around_system)}{{% endif %}}",
                "{% for message in turns %}",
                "{% if message.content is string %}{% set content = message.content %}{% else %}",
                "{% set parts = namespace(pictures='', text='') %}{% for part in message.content %}",
                "{% if part.type == 'text' %}{% set parts.text = parts.text + part.text %}{% else %}",
                "{% set parts.pictures = parts.pictures + (part.text | default('<image>')) + '\\n' %}",
                "{% endif %}{% endfor %}{% set content = parts.pictures + parts.text %}{% endif %}",
                "{% if message.role == 'user' %}",
                f"{{% if not loop.first %}}{_write(self.again)}{{% endif %}}" if self.again else "",
                _write_around(asked, self.question),
                f"{{% else %}}{lead}{mark}{_write_around('content', self.answer)}{unmark}",
                _write(self.between),
                "{% endif %}{% endfor %}",
                f"{{% if add_generation_prompt %}}{lead}{{% endif %}}" if lead else "",
            ]
        )


def _quote(text: str) -> str:
    """`text` as a Jinja string literal (Jinja reads Python's and so JSON's escapes)."""
    return json.dumps(text, ensure_ascii=False)


def _write(text: str) -> str:
    """A Jinja block that writes `text`."""
    return f"{{{{ {_quote(text)} }}}}" if text else ""


def _write_around(expression: str, around: tuple[str, str]) -> str:
    """A Jinja block that writes an expression's value between two texts."""
    before, after = (_quote(text) if text else "" for text in around)
    return "{{ " + " + ".join(part for part in (before, expression, after) if part) + " }}"


def _vicuna(name: str, user: str) -> ConvTemplate:
    return ConvTemplate(
        name=name,
        system=f"A chat between a curious {user} and an artificial intelligence assistant. "
        f"The assistant gives helpful, detailed, and polite answers to the {user}'s questions.",
        around_system=("", " "),
        question=("USER: ", " "),
        lead="ASSISTANT:",
        answer=(" ", "</s>"),
    )


def _llama_2(name: str, system: str, again: str) -> ConvTemplate:
    return ConvTemplate(
        name=name,
        system=system,
        around_system=("<<SYS>>\n", "\n<</SYS>>\n\n"),
        question=("", " [/INST]"),
        lead="",
        answer=(" ", " </s>"),
        start="[INST] ",
        again=again,
    )


def _chatml(name: str, system: str, line_end: str = "") -> ConvTemplate:
    """LLaVA's own ChatML has no line break after a turn; Qwen's has, and the model does not say it."""
    end = "<|im_end|>"
    return ConvTemplate(
        name=name,
        system=system,
        around_system=("<|im_start|>system\n", end + line_end),
        question=("<|im_start|>user\n", end + line_end),
        lead="<|im_start|>assistant\n",
        answer=("", end),
        between=line_end,
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
    around_system=("", "###"),
    question=("Human: ", "###"),
    lead="Assistant:",
    answer=(" ", "###"),
)
llava_llama_2 = _llama_2("llava_llama_2", _LLAVA_SYSTEM, again="<s>[INST] ")
mistral_instruct = _llama_2("mistral_instruct", "", again="[INST] ")
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
    around_system=("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
    question=("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    lead="<|start_header_id|>assistant<|end_header_id|>\n\n",
    answer=("", "<|eot_id|>"),
)
plain = ConvTemplate(
    name="plain",
    system="",
    around_system=("", ""),
    question=("", ""),
    lead="",
    answer=("", "\n"),
    captions=True,
)

# LLaVA's names. Its `default` and `v0` are Vicuna v0 with an example conversation inside: not offered, so
# that neither name means another text here than there.
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
"""The `--conv-mode` that stands for the checkpoint's own (see `template_of_chat`)."""


def get_template(name: str) -> ConvTemplate:
    """The template of a conv mode; InputError listing the known ones."""
    if name not in conv_templates:
        raise InputError(f"unknown conv mode {name!r}; known: {', '.join([AUTO, *conv_templates])}")
    return conv_templates[name]


def detect_template(chat_template: str | None, *, language: str, vocab_size: int) -> ConvTemplate:
    """The conv mode of a checkpoint: what its chat template stands for or, where it has none, its config.

    `language` is the config's name of the language model (`llama`, `mistral`, `qwen2`, ...). Our own chat
    templates are recognised exactly (a merged folder keeps its mode that way); others by the markers of
    their family. The vocabularies: Llama 1 and 2 (Vicuna) 32000, Yi 64000, Llama 3 128256.
    """
    for template in conv_templates.values():
        if chat_template in (template.jinja(), template.jinja(generation=False)):
            return template
    qwen = language.startswith("qwen")
    if not chat_template:
        if qwen:
            return qwen_1_5
        if language in _OF_LANGUAGE:
            return _OF_LANGUAGE[language]
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


_OF_LANGUAGE = {"mistral": mistral_instruct, "mpt": mpt}
