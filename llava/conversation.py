"""Chat templates ("conv modes"): one source for training, inference and export. Torch-free.

The text is LLaVA's own, separator for separator (llava/conversation.py of haotian-liu/LLaVA and
LLaVA-VL/LLaVA-NeXT), so prompts mean the same to original checkpoints. BOS is not part of it: the
tokenizer adds it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llava.errors import InputError
from llava.records import IMAGE_PLACEHOLDER

Speaker = Literal["human", "gpt"]
ChatTurns = Sequence[tuple[Speaker, str]]


@dataclass(frozen=True)
class ConvTemplate:
    """How a conversation becomes text. `style` names LLaVA's separator styles:

    two      `{system}{sep}USER: {q}{sep}ASSISTANT: {a}{sep2}USER: ...`
    llama_2  `[INST] <<SYS>>\\n{system}\\n<</SYS>>\\n\\n{q} [/INST] {a} {sep2}{sep}[INST] ...`
    mpt      `{system}{sep}{sep2}{user}{q}{sep}{sep2}{assistant}{a}{sep}{sep2}...` (ChatML)
    plain    `<image>{a}{sep}`: captions for pretraining the projector, the question is dropped
    """

    name: str
    style: Literal["two", "llama_2", "mpt", "plain"]
    system: str
    roles: tuple[str, str]
    sep: str
    sep2: str = ""

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings that end an answer."""
        return (self.sep2,) if self.style in ("two", "llama_2") else (self.sep,)

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
        pieces: list[tuple[str, bool]] = []
        if self.style in ("two", "mpt"):
            pieces.append((self._opening(self.system), False))
        for position, (speaker, text) in enumerate(turns):
            if speaker == "human":
                pieces.append((self._question(text, first=position == 0), False))
            else:
                pieces += [(self._answer_lead(), False), (self._answer(text), True)]
                if self.style == "mpt":  # between turns: the model has ended its own
                    pieces.append((self.sep2, False))
        if generation_prompt:
            pieces.append((self._answer_lead(), False))
        return [piece for piece in pieces if piece[0]]

    def text(self, turns: ChatTurns, *, generation_prompt: bool = False) -> str:
        """The rendered pieces joined."""
        return "".join(piece for piece, _ in self.render(turns, generation_prompt=generation_prompt))

    def _opening(self, system: str) -> str:
        return system + self.sep + (self.sep2 if self.style == "mpt" else "")

    def _question(self, text: str, *, first: bool) -> str:
        if self.style == "two":
            return f"{self.roles[0]}: {text}{self.sep}"
        if self.style == "mpt":
            return f"{self.roles[0]}{text}{self.sep}{self.sep2}"
        if self.style == "plain":
            return IMAGE_PLACEHOLDER * text.count(IMAGE_PLACEHOLDER)
        system = f"<<SYS>>\n{self.system}\n<</SYS>>\n\n" if first and self.system else ""
        return f"{'' if first else self.sep}[INST] {system}{text} [/INST]"

    def _answer_lead(self) -> str:
        return {"two": f"{self.roles[1]}:", "mpt": self.roles[1]}.get(self.style, "")

    def _answer(self, text: str) -> str:
        if self.style == "two":
            return f" {text}{self.sep2}"
        if self.style == "llama_2":
            return f" {text} {self.sep2}"
        return f"{text}{self.sep}"

    def jinja(self) -> str:
        """The same text as a Hugging Face chat template, answers marked by `{% generation %}`.

        Messages have the roles user and assistant (a leading system message replaces the template's own
        system text); a content list puts its pictures before its text, as `<image>\\n`.
        """
        question = {
            "two": f"{_quote(self.roles[0] + ': ')} + content + {_quote(self.sep)}",
            "mpt": f"{_quote(self.roles[0])} + content + {_quote(self.sep + self.sep2)}",
            "llama_2": (
                f"('' if loop.first else {_quote(self.sep)}) + '[INST] '"
                " + ('<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' if loop.first and system else '')"
                " + content + ' [/INST]'"
            ),
            "plain": f"'<image>' * (content.split({_quote(IMAGE_PLACEHOLDER)}) | length - 1)",
        }[self.style]
        answer = {
            "two": f"' ' + content + {_quote(self.sep2)}",
            "mpt": f"content + {_quote(self.sep)}",
            "llama_2": f"' ' + content + {_quote(' ' + self.sep2)}",
            "plain": f"content + {_quote(self.sep)}",
        }[self.style]
        opening = f"{{{{ system + {_quote(self._opening(''))} }}}}" if self.style in ("two", "mpt") else ""
        between = f"{{{{ {_quote(self.sep2)} }}}}" if self.style == "mpt" and self.sep2 else ""
        own_head, _, own_body = self.system.rpartition("\n") if self.style == "mpt" else ("", "", self.system)
        head = f"{own_head}\n" if own_head else ""
        lead = self._answer_lead()
        lead_block = f"{{{{ {_quote(lead)} }}}}" if lead else ""
        return "".join(
            [
                "{% if messages[0].role == 'system' %}",
                f"{{% set system = {_quote(head)} + messages[0].content %}}{{% set turns = messages[1:] %}}",
                f"{{% else %}}{{% set system = {_quote(head + own_body)} %}}",
                "{% set turns = messages %}{% endif %}",
                opening,
                "{% for message in turns %}",
                "{% if message.content is string %}{% set content = message.content %}{% else %}",
                "{% set parts = namespace(pictures='', text='') %}{% for part in message.content %}",
                "{% if part.type == 'text' %}{% set parts.text = parts.text + part.text %}",
                "{% else %}{% set parts.pictures = parts.pictures + '<image>\\n' %}{% endif %}{% endfor %}",
                "{% set content = parts.pictures + parts.text %}{% endif %}",
                f"{{% if message.role == 'user' %}}{{{{ {question} }}}}{{% else %}}{lead_block}",
                f"{{% generation %}}{{{{ {answer} }}}}{{% endgeneration %}}{between}",
                "{% endif %}{% endfor %}",
                f"{{% if add_generation_prompt %}}{lead_block}{{% endif %}}" if lead else "",
            ]
        )


def _quote(text: str) -> str:
    """`text` as a Jinja string literal (Jinja reads Python's and so JSON's escapes)."""
    return json.dumps(text, ensure_ascii=False)


vicuna_v1 = ConvTemplate(
    name="vicuna_v1",
    style="two",
    system="A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    roles=("USER", "ASSISTANT"),
    sep=" ",
    sep2="</s>",
)
llava_v1 = ConvTemplate(
    name="llava_v1",
    style="two",
    system="A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions.",
    roles=("USER", "ASSISTANT"),
    sep=" ",
    sep2="</s>",
)
llava_llama_2 = ConvTemplate(
    name="llava_llama_2",
    style="llama_2",
    system="You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language.",
    roles=("USER", "ASSISTANT"),
    sep="<s>",
    sep2="</s>",
)
mistral_instruct = ConvTemplate(
    name="mistral_instruct", style="llama_2", system="", roles=("USER", "ASSISTANT"), sep="", sep2="</s>"
)
chatml_direct = ConvTemplate(
    name="chatml_direct",
    style="mpt",
    system="<|im_start|>system\nAnswer the questions.",
    roles=("<|im_start|>user\n", "<|im_start|>assistant\n"),
    sep="<|im_end|>",
)
qwen_1_5 = ConvTemplate(
    name="qwen_1_5",
    style="mpt",
    system="<|im_start|>system\nYou are a helpful assistant.",
    roles=("<|im_start|>user\n", "<|im_start|>assistant\n"),
    sep="<|im_end|>",
    sep2="\n",
)
plain = ConvTemplate(name="plain", style="plain", system="", roles=("", ""), sep="\n")

conv_templates: dict[str, ConvTemplate] = {
    "default": vicuna_v1,
    "v1": vicuna_v1,
    "vicuna_v1": vicuna_v1,
    "llava_v1": llava_v1,
    "llava_llama_2": llava_llama_2,
    "mistral_instruct": mistral_instruct,
    "chatml_direct": chatml_direct,
    "mistral_direct": chatml_direct,
    "qwen_1_5": qwen_1_5,
    "qwen_2": qwen_1_5,
    "plain": plain,
}
default_conversation = vicuna_v1


def get_template(name: str) -> ConvTemplate:
    """The template of a conv mode; InputError listing the known ones."""
    if name not in conv_templates:
        raise InputError(f"unknown conv mode {name!r}; known: {', '.join(conv_templates)}")
    return conv_templates[name]


def template_of_chat(chat_template: str | None, *, qwen: bool = False) -> ConvTemplate:
    """The conv mode that a model's chat template stands for; `qwen`: its language model is a Qwen.

    Our own templates are recognised exactly (a merged folder keeps its mode that way); others by the
    markers of their family; without a chat template it is LLaVA-1.5's `vicuna_v1`.
    """
    for template in conv_templates.values():
        if chat_template == template.jinja():
            return template
    if chat_template and "<|im_start|>" in chat_template:
        return qwen_1_5 if qwen else chatml_direct
    if chat_template and "[INST]" in chat_template:
        return mistral_instruct
    if chat_template and llava_v1.system in chat_template:
        return llava_v1
    return vicuna_v1
